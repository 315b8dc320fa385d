"""The audit log: who changed what, each entry chained to the one before by its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change."""

    organization_id: str
    at: datetime
    actor_user_id: str
    action: str
    target_id: str
    request_id: str


class AuditStore(Protocol):
    """Where entries go. Nothing is ever changed or removed."""

    async def append(self, entry: AuditEntry) -> None:
        """Add an entry to the end of its organization's chain."""
        ...

    async def list_entries(self, organization_id: str) -> list[tuple[AuditEntry, bytes]]:
        """Return the entries of an organization with their hashes, oldest first."""
        ...


def link(previous: bytes, entry: AuditEntry) -> bytes:
    """Return the hash of an entry that follows another."""
    fields = [entry.organization_id, entry.at.isoformat(), entry.actor_user_id, entry.action, entry.target_id]
    # As a list in JSON, so that no text can pass from one field into the next.
    return hashlib.sha256(previous + json.dumps([*fields, entry.request_id]).encode()).digest()


def broken_at(chain: list[tuple[AuditEntry, bytes]]) -> int | None:
    """Return the place of the first entry that was tampered with, or None."""
    previous = b""
    for place, (entry, digest) in enumerate(chain):
        if link(previous, entry) != digest:
            return place
        previous = digest
    return None
