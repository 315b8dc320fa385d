"""What makes two requests the same: those with one key must be equal in everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from google.protobuf.message import Message

from letta_common.errors import IdempotencyConflict

KEY = "request_id"


def digest_of(request: Message, *more: bytes, without: Iterable[str] = (KEY,)) -> bytes:
    """Return what tells two requests apart, without their key and other fields that do not matter."""
    told = type(request)()
    told.CopyFrom(request)
    for name in without:
        told.ClearField(name)
    text = told.SerializeToString(deterministic=True)
    return hashlib.sha256(b"\0".join((request.DESCRIPTOR.full_name.encode(), *more, text))).digest()


def require_same(stored: bytes | None, given: bytes) -> None:
    """Raise IdempotencyConflict when what is stored was asked for by another request; what has no digest passes."""
    if stored and given and bytes(stored) != given:
        raise another_request()


def another_request() -> IdempotencyConflict:
    """Return the error for a key that was used before with another body."""
    return IdempotencyConflict("another request was sent with this key; use a new key for each request")
