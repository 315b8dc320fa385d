"""Every method of the contracts, and requests that hold one value in one field, however deep."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2
from letta.jsonmap.v1 import annotations_pb2
from letta_common.errors import AppError
from letta_rpc.rpc_errors import from_status_parts

_SERVICES = {
    "agent": ("agent", "conversation", "run", "step"),
    "auth": ("api_key", "credential", "organization", "user"),
    "llm": ("budget", "embedding", "generation", "model", "provider", "trace", "usage"),
    "memory": ("archive", "block", "context", "file", "folder", "identity", "message", "passage"),
    "tools": ("mcp_server", "sandbox_config", "tool_execution", "tool"),
}
_DEEP = 8
_STRING, _ENUM = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM
_NEEDED: dict[tuple[str, int], Any] = {
    **{(name, _STRING): "needed" for name in ("name", "label", "key", "server_name", "tool_name", "text", "value")},
    ("role", _ENUM): 1,
}
"""What messages cannot do without, where they have a field of that name."""
Field = Any
Path = tuple[Field, ...]


def methods() -> list[Any]:
    """Return the descriptors of every public method."""
    return [each for each in all_methods() if not each.GetOptions().Extensions[annotations_pb2.method].internal]


def all_methods() -> list[Any]:
    """Return the descriptors of every method, also of those between services."""
    found = []
    for package, nouns in _SERVICES.items():
        for noun in nouns:
            importlib.import_module(f"letta.{package}.v1.{noun}_service_pb2")
            file = descriptor_pool.Default().FindFileByName(f"letta/{package}/v1/{noun}_service.proto")
            found += [method for service in file.services_by_name.values() for method in service.methods]
    return found


def leaves(message: Any, kind: int, above: Path = ()) -> Iterator[Path]:
    """Yield the path to each field of a type in a message; a message within itself is entered once."""
    for field in message.fields:
        path = (*above, field)
        if field.type == kind:
            yield path
        if field.message_type is not None and len(path) < _DEEP and field.message_type not in _types(above):
            yield from leaves(field.message_type, kind, path)


def _types(path: Path) -> list[Any]:
    return [field.message_type for field in path]


def holding(method: Any, owned: dict[str, str], path: Path, value: Any) -> Any:
    """Return a request with the caller's ids wherever it has fields of their names, and a value in one field."""
    request = filled(method, owned)
    put(request, path, value)
    return request


def filled(method: Any, owned: dict[str, str]) -> Any:
    request = message_factory.GetMessageClass(method.input_type)()
    for field in method.input_type.fields:
        known = owned.get(field.name)
        if field.type == field.TYPE_STRING and not field.is_repeated and known:
            setattr(request, field.name, known)
    return request


def put(message: Any, path: Path, value: Any) -> None:
    field, rest = path[0], path[1:]
    _add_needed(message, field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _put_in_map(getattr(message, field.name), rest, value)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        inner = inner.add() if field.is_repeated else inner
        inner.SetInParent()
        if rest:
            put(inner, rest, value)
        elif value is not None:
            inner.CopyFrom(value)
    elif field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _add_needed(message: Any, field: Field) -> None:
    """Fill what a message needs beside a field, so that a request is refused for that field alone."""
    for other in message.DESCRIPTOR.fields:
        value = _NEEDED.get((other.name, other.type))
        if value and other is not field and not other.is_repeated and not other.containing_oneof:
            setattr(message, other.name, value)


def _put_in_map(entries: Any, rest: Path, value: Any) -> None:
    if rest[0].name == "key":
        entries[value] = "x"
    else:
        entries["key"] = value


def name_of(path: Path) -> str:
    return ".".join(field.name for field in path)


def longest(path: Path) -> int:
    """Return the most characters that the contract allows in a field by a rule of its own; 0 when it has none."""
    rules = path[-1].GetOptions().Extensions[validate_pb2.field]
    return max(rules.string.max_len, rules.repeated.items.string.max_len)


def keeps_nul(path: Path) -> bool:
    return bool(path[-1].GetOptions().Extensions[annotations_pb2.field].keeps_nul)


def call(channel: grpc.Channel, method: Any, request: Any, *metadata: tuple[str, Any]) -> tuple[grpc.StatusCode, Any]:
    """Call a method with a message or with bytes; return the code, and the answer or the text of the status."""
    try:
        return grpc.StatusCode.OK, _called(channel, method, request, metadata)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""


def refusal(channel: grpc.Channel, method: Any, request: Any, *metadata: tuple[str, Any]) -> AppError | None:
    """Call a method; return the error that it answers, with its fields, or None."""
    try:
        _called(channel, method, request, metadata)
    except grpc.RpcError as error:
        return from_status_parts(error.code(), error.details() or "", error.trailing_metadata() or ())
    return None


def _called(channel: grpc.Channel, method: Any, request: Any, metadata: tuple[tuple[str, Any], ...]) -> Any:
    kinds = (channel.unary_unary, channel.unary_stream, channel.stream_unary)
    stub = kinds[2 * method.client_streaming + method.server_streaming](
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda sent: sent if isinstance(sent, bytes) else sent.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    answer = stub(iter([request]) if method.client_streaming else request, timeout=30, metadata=metadata)
    return list(answer) if method.server_streaming else answer
