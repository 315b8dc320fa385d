"""Environment variables of agents, sealed for their agent."""

from __future__ import annotations

from collections.abc import Sequence

from letta.agent.v1 import agent_pb2, stored_pb2
from letta_common.sealing import SealedAt, Sealer

SECRETS = "agent.agents.secrets"
Variable = agent_pb2.AgentEnvironmentVariable


class SecretClient:
    """Seals and opens all variables of an agent as one text."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, organization_id: str, agent_id: str, variables: Sequence[Variable]) -> bytes:
        """Return the variables sealed."""
        plain = stored_pb2.StoredSecrets(variables=variables).SerializeToString()
        return self._sealer.seal(SealedAt(SECRETS, organization_id, agent_id), plain)

    def open(self, organization_id: str, agent_id: str, sealed: bytes) -> list[Variable]:
        """Return the variables."""
        plain = self._sealer.open(SealedAt(SECRETS, organization_id, agent_id), sealed)
        return list(stored_pb2.StoredSecrets.FromString(plain).variables)

    def environment(self, organization_id: str, agent_id: str, sealed: bytes) -> dict[str, str]:
        """Return the variables by name."""
        return {variable.key: variable.value for variable in self.open(organization_id, agent_id, sealed)}
