"""Environment variables of agents, encrypted with a key of their organization."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from letta.agent.v1 import agent_pb2, stored_pb2

Variable = agent_pb2.AgentEnvironmentVariable
_NONCE = 12
_MOST_KEYS = 4096
_VERSION = b"\x01"


class SecretVault:
    """AES-256-GCM, bound to organization and agent; keys are derived from the deployment's secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._key = lru_cache(_MOST_KEYS)(self._derived)

    def seal(self, organization_id: str, agent_id: str, variables: Sequence[Variable]) -> bytes:
        """Return the variables encrypted."""
        nonce = os.urandom(_NONCE)
        plain = stored_pb2.StoredSecrets(variables=variables).SerializeToString()
        return _VERSION + nonce + self._key(organization_id).encrypt(nonce, plain, _bound(organization_id, agent_id))

    def open(self, organization_id: str, agent_id: str, sealed: bytes) -> list[Variable]:
        """Return the variables."""
        nonce, text = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        plain = self._key(organization_id).decrypt(nonce, text, _bound(organization_id, agent_id))
        return list(stored_pb2.StoredSecrets.FromString(plain).variables)

    def environment(self, organization_id: str, agent_id: str, sealed: bytes) -> dict[str, str]:
        """Return the variables by name."""
        return {variable.key: variable.value for variable in self.open(organization_id, agent_id, sealed)}

    def _derived(self, organization_id: str) -> AESGCM:
        info = f"letta agent secrets {organization_id}".encode()
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=info).derive(self._secret))


def _bound(organization_id: str, agent_id: str) -> bytes:
    return f"{organization_id}|agents|{agent_id}|secrets".encode()
