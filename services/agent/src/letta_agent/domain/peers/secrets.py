"""What the rules need to read the secrets of agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class SecretBox(Protocol):
    """Opens the encrypted environment variables of an agent."""

    def environment(self, organization_id: str, agent_id: str, sealed: bytes) -> Mapping[str, str]:
        """Return the variables by name."""
        ...
