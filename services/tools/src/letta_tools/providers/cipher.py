"""Encryption of secrets at rest: AES-256-GCM with a key of its own for each organization."""

from __future__ import annotations

import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from letta_common.errors import InternalError

_VERSION = b"\x01"
_NONCE = 12
_MOST_KEYS = 4096


class Cipher:
    """Seals texts for an organization."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._key = lru_cache(_MOST_KEYS)(self._derived)

    def seal(self, organization_id: str, text: str) -> bytes:
        """Encrypt a text."""
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._key(organization_id).encrypt(nonce, text.encode(), organization_id.encode())

    def open(self, organization_id: str, sealed: bytes) -> str:
        """Decrypt a text. Raises InternalError when the key is another one."""
        nonce, body = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            return self._key(organization_id).decrypt(nonce, body, organization_id.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise InternalError("a secret cannot be decrypted: the encryption key is another one") from error

    def _derived(self, organization_id: str) -> AESGCM:
        derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"letta.tools\0" + organization_id.encode())
        return AESGCM(derive.derive(self._secret))
