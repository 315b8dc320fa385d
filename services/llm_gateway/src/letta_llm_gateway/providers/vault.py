"""Seals secrets with AES-256-GCM, each organization's under a key derived for it.

A sealed text is a format byte, four bytes that tell which secret sealed it, a nonce and what AES-GCM makes. Texts of
the first format have no such mark and are tried with every secret.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from letta_common.errors import InternalError

_MARKED = b"\x02"
_NONCE = 12
_MARK = 4


class KeyVault:
    """Seals with keys derived from the first secret; opens with any; for one organization and purpose alone."""

    def __init__(self, secret: bytes, others: Sequence[bytes] = ()) -> None:
        self._secrets = {_mark(each): each for each in (*reversed(others), secret)}
        self._format = _MARKED + _mark(secret)
        self._key = lru_cache(maxsize=4096)(_derived)
        self._secret = secret

    @property
    def format(self) -> bytes:
        """What everything begins with that is sealed with the secret of now."""
        return self._format

    def seal(self, organization_id: str, purpose: str, secret: str) -> bytes:
        """Return the secret sealed for this organization and purpose."""
        nonce = os.urandom(_NONCE)
        cipher = AESGCM(self._key(self._secret, organization_id))
        return self._format + nonce + cipher.encrypt(nonce, secret.encode(), _bound(organization_id, purpose))

    def open(self, organization_id: str, purpose: str, sealed: bytes) -> str:
        """Return the secret. Raises InternalError when it was sealed for something else or with another key."""
        bound = _bound(organization_id, purpose)
        if sealed[:1] == _MARKED:
            mark, body = sealed[1 : 1 + _MARK], sealed[1 + _MARK :]
            secrets = [self._secrets[mark]] if mark in self._secrets else []
        else:
            body = sealed[1:]
            secrets = [self._secret, *(each for each in self._secrets.values() if each != self._secret)]
        for secret in secrets:
            try:
                cipher = AESGCM(self._key(secret, organization_id))
                return cipher.decrypt(body[:_NONCE], body[_NONCE:], bound).decode()
            except (InvalidTag, ValueError):
                continue
        raise InternalError("a provider key cannot be opened: was LETTA_ENCRYPTION_KEY changed?")


def _bound(organization_id: str, purpose: str) -> bytes:
    return f"{organization_id}/{purpose}".encode()


def _mark(secret: bytes) -> bytes:
    return hashlib.sha256(b"letta.llm.mark" + secret).digest()[:_MARK]


def _derived(secret: bytes, organization_id: str) -> bytes:
    return HKDF(SHA256(), 32, salt=b"letta.llm.provider-keys", info=organization_id.encode()).derive(secret)
