"""What makes two requests the same: those with one key must be equal in everything else."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from letta.jsonmap.v1 import annotations_pb2
from letta_common.errors import IdempotencyConflict

KEY = "request_id"


class Digests:
    """Tells requests apart by what may be kept of them.

    Requests hold secrets, which an HMAC under a key of the deployment does not give away to who reads the database.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"letta.request-digests", "sha256")

    def of(self, request: Message, *more: Message | str, without: Iterable[str] = (KEY,)) -> bytes:
        """Return what tells two requests apart, without their key and other fields that do not matter."""
        left_out = frozenset(without)
        described = [each if isinstance(each, str) else _described(each) for each in more]
        text = json.dumps([*_described(request, left_out), *described], sort_keys=True, separators=(",", ":"))
        return hmac.digest(self._key, text.encode(), "sha256")


def _described(message: Message, without: frozenset[str] = frozenset()) -> list[Any]:
    return [message.DESCRIPTOR.full_name, [each for each in _fields(message) if each[0] not in without]]


def _fields(message: Message) -> list[tuple[str, Any]]:
    """Return the known fields that are set, by name: how they were encoded is no difference."""
    return sorted((field.name, _canonical(field, value)) for field, value in message.ListFields())


def _canonical(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Mapping) and field.message_type is not None:
        item = field.message_type.fields_by_name["value"]
        return sorted((str(key), _plain(item, value[key])) for key in value)
    if field.is_repeated:
        return [_plain(field, each) for each in value]
    return _plain(field, value)


def _plain(field: FieldDescriptor, value: Any) -> Any:
    """Return a value as JSON knows it; of JSON texts what they say, whatever their spaces and their keys' order."""
    if isinstance(value, Message):
        return _fields(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str) and field.GetOptions().Extensions[annotations_pb2.field].raw:
        return _read(value)
    return value


def _read(text: str) -> Any:
    try:
        return ["json", json.loads(text)]
    except (ValueError, RecursionError):
        return text


def require_same(stored: bytes | None, given: bytes) -> None:
    """Raise IdempotencyConflict when what is stored was asked for by another request; what has no digest passes."""
    if stored and given and bytes(stored) != given:
        raise another_request()


def another_request() -> IdempotencyConflict:
    """Return the error for a key that was used before with another body."""
    return IdempotencyConflict("another request was sent with this key; use a new key for each request")
