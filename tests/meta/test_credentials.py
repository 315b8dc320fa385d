"""Without the development mode no RPC answers a caller without credential, and internal ones know services alone."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from letta_rpc.service import Service
from scripts.contracts import Method, ServiceContract, read_contracts
from tests.support.rpc import Identities, running

CONTRACTS = read_contracts()
METHODS = pytest.mark.parametrize("method", CONTRACTS.methods, ids=lambda method: method.full_name)


def contract_of(service: ServiceContract) -> tuple[Any, object]:
    """Return how a service is added to a server, and a servicer that answers UNIMPLEMENTED to whatever gets through."""
    module = importlib.import_module(service.file.removesuffix(".proto").replace("/", ".") + "_pb2_grpc")
    name = service.name.rpartition(".")[2]
    return getattr(module, f"add_{name}Servicer_to_server"), getattr(module, f"{name}Servicer")()


@pytest.fixture(scope="module")
async def bare() -> Iterator[grpc.aio.Channel]:
    """A transport to every service that says nothing of the caller."""
    service = Service("all", tuple(contract_of(one) for one in CONTRACTS.services))
    async with running(service, identities=Identities(), dev_mode=False) as channel:
        yield channel._inner


def call(channel: grpc.aio.Channel, method: Method) -> Any:
    """Begin a call with an empty request."""
    file = next(one.file for one in CONTRACTS.services if one.name == method.service)
    module = importlib.import_module(file.removesuffix(".proto").replace("/", ".") + "_pb2")
    service = module.DESCRIPTOR.services_by_name[method.service.rpartition(".")[2]]
    found = service.methods_by_name[method.proto.name]
    request = message_factory.GetMessageClass(found.input_type)
    response = message_factory.GetMessageClass(found.output_type)
    kind = channel.unary_stream if method.proto.server_streaming else channel.unary_unary
    place = f"/{method.service}/{method.proto.name}"
    multi = kind(place, request_serializer=request.SerializeToString, response_deserializer=response.FromString)
    return multi(request(), timeout=10)


async def drained(begun: Any, streams: bool) -> None:
    if not streams:
        await begun
        return
    async for _ in begun:
        pass


@METHODS
async def test_a_caller_without_credential_is_refused(bare, method):
    expected = grpc.StatusCode.UNIMPLEMENTED if method.mapping.internal else grpc.StatusCode.UNAUTHENTICATED

    with pytest.raises(grpc.RpcError) as failed:
        await drained(call(bare, method), method.proto.server_streaming)

    assert failed.value.code() == expected
