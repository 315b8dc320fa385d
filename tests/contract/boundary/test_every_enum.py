"""A number that no word of an enum has is refused by its field, whoever calls: over every enum of every request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor

from letta_common.errors import AppError, InternalError, ValidationFailed
from letta_rpc.service import Service
from tests.contract.boundary.contracts import Path, all_methods, holding, leaves
from tests.support.rpc import running

METHODS = all_methods()
UNKNOWN = (99, -1, 2**31 - 1)


def register(_: object, server: Any) -> None:
    """Add every method of the contracts to a server; what gets past the boundary is a fault."""
    for method in METHODS:
        reads = message_factory.GetMessageClass(method.input_type).FromString
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        handler = make(_reached, request_deserializer=reads, response_serializer=bytes)
        server.add_registered_method_handlers(method.containing_service.full_name, {method.name: handler})


async def _reached(request: Any, context: Any) -> Any:
    raise InternalError(f"{request.DESCRIPTOR.full_name} reached its handler")


async def refusal(channel: grpc.aio.Channel, method: Any, request: Any) -> AppError:
    make: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
    stub = make(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda sent: sent.SerializeToString(),
        response_deserializer=bytes,
    )
    with pytest.raises(AppError) as caught:
        await (anext(aiter(stub(request))) if method.server_streaming else stub(request))
    return caught.value


def told(path: Path) -> str:
    """Return the name that a caller knows a field by; entries of maps have none of their own."""
    return ".".join(field.name for field in path if not field.containing_type.GetOptions().map_entry)


def enums() -> Iterator[tuple[Any, Path]]:
    for method in METHODS:
        for path in leaves(method.input_type, FieldDescriptor.TYPE_ENUM):
            yield method, path


async def test_an_unknown_number_of_a_service_is_refused_by_its_field() -> None:
    bad: dict[str, Any] = {}
    async with running(Service("contracts", ((register, None),))) as channel:
        for method, path in enums():
            for number in UNKNOWN:
                error = await refusal(channel, method, holding(method, {}, path, number))
                fields = {re.sub(r"\[[^]]*]", "", name) for name in error.metadata}
                if not isinstance(error, ValidationFailed) or told(path) not in fields:
                    bad[f"{method.full_name} {told(path)} {number}"] = (error.reason, error.message)

    assert bad == {}
    assert len(list(enums())) > 150
