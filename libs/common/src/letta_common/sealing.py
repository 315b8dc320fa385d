"""Secrets at rest: AES-256-GCM under keys that are derived for each organization and each column.

A sealed text is a format byte, four bytes that tell which secret sealed it, a nonce, and what AES-GCM makes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from letta_common.errors import InternalError

_FORMAT = b"\x03"  # stands first, so that another way of sealing can be told apart
_MARK, _NONCE = 4, 12  # AES-GCM is made for nonces of twelve bytes
_MOST_KEYS = 4096  # as many organizations find their key derived already


@dataclass(frozen=True, slots=True)
class SealedAt:
    """Where a secret is kept. What was sealed for one place opens at no other."""

    column: str
    """`schema.table.column`."""
    organization_id: str
    row: str
    """What names the row within its organization."""


class Sealer:
    """Seals with the first of the deployment's secrets, and opens what any of them sealed."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        # Reversed, so that of two secrets with one mark the earlier one counts, which is the one that seals.
        self._secrets = {_derived(secret, b"mark", _MARK): secret for secret in reversed(secrets)}
        self.begins = _FORMAT + _derived(secrets[0], b"mark", _MARK)
        """What everything begins with that the first secret sealed."""
        self._cipher = lru_cache(_MOST_KEYS)(_cipher)
        self._first = secrets[0]

    def seal(self, at: SealedAt, plain: bytes) -> bytes:
        """Return a secret sealed for its place."""
        nonce = os.urandom(_NONCE)
        cipher = self._cipher(self._first, at.column, at.organization_id)
        return self.begins + nonce + cipher.encrypt(nonce, plain, _bound(at))

    def open(self, at: SealedAt, sealed: bytes) -> bytes:
        """Return the secret. Raises InternalError when it was sealed for another place, or with a secret not given."""
        head, body = sealed[: len(self.begins)], sealed[len(self.begins) :]
        secret = self._secrets.get(head[1:]) if head[:1] == _FORMAT else None
        if secret is None:
            raise InternalError(f"a secret in {at.column} has another key: was LETTA_ENCRYPTION_KEY changed?")
        try:
            cipher = self._cipher(secret, at.column, at.organization_id)
            return cipher.decrypt(body[:_NONCE], body[_NONCE:], _bound(at))
        except (InvalidTag, ValueError) as error:
            raise InternalError(f"a secret in {at.column} was changed, or was sealed for another row") from error


def _bound(at: SealedAt) -> bytes:
    return json.dumps([at.column, at.organization_id, at.row]).encode()


def _cipher(secret: bytes, column: str, organization_id: str) -> AESGCM:
    return AESGCM(_derived(secret, json.dumps([column, organization_id]).encode(), 32))


def _derived(secret: bytes, label: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=b"letta.sealing", info=label).derive(secret)
