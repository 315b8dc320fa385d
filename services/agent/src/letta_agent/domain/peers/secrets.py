"""What the rules need to keep and read the secrets of agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from letta.agent.v1 import agent_pb2

Variable = agent_pb2.AgentEnvironmentVariable


class SecretPeer(Protocol):
    """Seals the environment variables of an agent, bound to the agent, and opens them."""

    def seal(self, organization_id: str, agent_id: str, variables: Sequence[Variable]) -> bytes:
        """Return the variables sealed."""
        ...

    def open(self, organization_id: str, agent_id: str, sealed: bytes) -> list[Variable]:
        """Return the variables."""
        ...

    def environment(self, organization_id: str, agent_id: str, sealed: bytes) -> Mapping[str, str]:
        """Return the variables by name."""
        ...
