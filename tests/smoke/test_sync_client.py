"""A synchronous client against a service on a real port, with the fixtures of pytest-grpc.

The server of pytest-grpc is synchronous: `grpc_server` and `grpc_addr` are overridden, so that ours is served instead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from pydantic import SecretStr

from letta.memory.v1 import block_pb2, block_service_pb2, block_service_pb2_grpc
from letta_common.clock import SystemClock
from letta_memory.settings import MemorySettings
from letta_memory.wiring import build
from letta_rpc.boundary import Boundary
from letta_rpc.server import Server
from letta_rpc.service import Deps
from tests.support.rpc import SECRET, Identities

SECONDS = 20


class ServedMemory:
    """Memory, served by an event loop in a thread of its own."""

    def __init__(self, database_url: str, home: Path) -> None:
        self._settings = MemorySettings(
            home=home,
            bind="127.0.0.1:0",
            dev_mode=True,
            database_url=SecretStr(database_url),
            cluster_secret=SecretStr(SECRET),
            drain_seconds=1,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._run(self._start())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.port}"

    def stop(self) -> None:
        self._run(self._server.stop(notice=0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    async def _start(self) -> Server:
        identities, clock = Identities(), SystemClock()
        boundary = Boundary(identities.verifier, identities, secret=self._settings.secret(), clock=clock, dev_mode=True)
        server = Server([await build(self._settings, Deps(clock=clock))], self._settings, boundary)
        await server.start()
        return server


@pytest.fixture(scope="module")
def grpc_server(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedMemory]:
    server = ServedMemory(database_url, tmp_path_factory.mktemp("home"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: ServedMemory) -> str:
    return grpc_server.address


@pytest.fixture(scope="module")
def grpc_stub_cls():
    return block_service_pb2_grpc.BlockServiceStub


def made(stub, label: str) -> block_pb2.Block:
    block = block_pb2.Block(label=label, value="Name: Sam.")
    return stub.CreateBlock(block_service_pb2.CreateBlockRequest(block=block), timeout=SECONDS).block


def test_what_was_written_is_read(grpc_stub):
    block = made(grpc_stub, "human")

    request = block_service_pb2.GetBlockRequest(block_id=block.id)
    assert grpc_stub.GetBlock(request, timeout=SECONDS).block == block


def test_a_list_has_what_was_written(grpc_stub):
    block = made(grpc_stub, "listed")

    answer = grpc_stub.ListBlocks(block_service_pb2.ListBlocksRequest(label="listed"), timeout=SECONDS)

    assert [one.id for one in answer.blocks] == [block.id]


def test_an_error_says_its_reason(grpc_stub):
    request = block_service_pb2.GetBlockRequest(block_id="block-00000000-0000-4000-8000-0000000000aa")

    with pytest.raises(grpc.RpcError) as failed:
        grpc_stub.GetBlock(request, timeout=SECONDS)

    info = error_details_pb2.ErrorInfo()
    details = rpc_status.from_call(failed.value).details
    assert next(detail for detail in details if detail.Unpack(info))
    assert (failed.value.code(), info.reason) == (grpc.StatusCode.NOT_FOUND, "BLOCK_NOT_FOUND")


def test_a_malformed_id_is_refused(grpc_stub):
    with pytest.raises(grpc.RpcError) as failed:
        grpc_stub.GetBlock(block_service_pb2.GetBlockRequest(block_id="nope"), timeout=SECONDS)

    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_channels_may_be_made_at_will(grpc_create_channel):
    with grpc_create_channel() as channel:
        stub = block_service_pb2_grpc.BlockServiceStub(channel)

        assert stub.CountBlocks(block_service_pb2.CountBlocksRequest(), timeout=SECONDS).count >= 0


@pytest.mark.parametrize("symbol", ["letta.memory.v1.BlockService.GetBlock", "letta.memory.v1.Block.label"])
def test_reflection_finds_methods_and_fields(grpc_channel, symbol):
    stub = reflection_pb2_grpc.ServerReflectionStub(grpc_channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)])

    (answer,) = stub.ServerReflectionInfo(asked, timeout=SECONDS)

    assert answer.file_descriptor_response.file_descriptor_proto


def test_reflection_says_what_it_does_not_know(grpc_channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(grpc_channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol="letta.memory.v1.Nothing.Get")])

    (answer,) = stub.ServerReflectionInfo(asked, timeout=SECONDS)

    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
