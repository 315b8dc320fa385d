"""Seals secrets with AES-256-GCM, each organization's under a key derived for it."""

from __future__ import annotations

import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from letta_common.errors import InternalError

_FORMAT = b"\x01"
_NONCE = 12


class KeyVault:
    """Seals with keys derived from one secret; a sealed text opens only for its organization and purpose."""

    def __init__(self, secret: bytes) -> None:
        self._key = lru_cache(maxsize=4096)(lambda organization_id: _derived(secret, organization_id))

    def seal(self, organization_id: str, purpose: str, secret: str) -> bytes:
        """Return the secret sealed for this organization and purpose."""
        nonce = os.urandom(_NONCE)
        bound = f"{organization_id}/{purpose}".encode()
        return _FORMAT + nonce + AESGCM(self._key(organization_id)).encrypt(nonce, secret.encode(), bound)

    def open(self, organization_id: str, purpose: str, sealed: bytes) -> str:
        """Return the secret. Raises InternalError when it was sealed for something else or with another key."""
        nonce, body = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        bound = f"{organization_id}/{purpose}".encode()
        try:
            return AESGCM(self._key(organization_id)).decrypt(nonce, body, bound).decode()
        except (InvalidTag, ValueError) as error:
            raise InternalError("a provider key cannot be opened: was LETTA_ENCRYPTION_KEY changed?") from error


def _derived(secret: bytes, organization_id: str) -> bytes:
    return HKDF(SHA256(), 32, salt=b"letta.llm.provider-keys", info=organization_id.encode()).derive(secret)
