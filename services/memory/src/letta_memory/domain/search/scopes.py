"""What one search looks through, by its number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SearchScope:
    """An archive, or the messages of an agent, whoever it belongs to."""

    organization_id: str
    number: int
