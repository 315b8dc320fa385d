"""Services that start late, stop, come back and change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from google.protobuf import descriptor_pb2

from letta_rpc.client import bare_channel
from letta_transcode.descriptors.catalog import Catalog
from letta_transcode.descriptors.reflection import ReflectionError, read
from tests.contract.http.conftest import front, gateway_settings
from tests.servers import free_port
from tests.unit.transcode.toy import SERVICE, Toy, toy_files, toy_server


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so; a hang is the only way to fail."""
    async with asyncio.timeout(30):
        while not await check():  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.02)


def other_catalog(path: str = "/v1/others/{item_id}") -> Catalog:
    """Return a contract with one method of the toy's, under another service name and path."""
    files = [descriptor_pb2.FileDescriptorProto.FromString(data) for data in toy_files()]
    from google.api import annotations_pb2

    service = files[-1].service[0]
    service.name = "OtherService"
    method = next(each for each in service.method if each.name == "GetItem")
    del service.method[:]
    service.method.append(method)
    rule = service.method[0].options.Extensions[annotations_pb2.http]
    rule.Clear()
    rule.get = path
    return Catalog([file.SerializeToString() for file in files], ["toy.v1.OtherService"])


async def test_services_start_in_any_order():
    ports = {"first": free_port(), "second": free_port()}
    channels = {name: bare_channel(f"127.0.0.1:{port}", gateway_settings()) for name, port in ports.items()}
    async with front(channels) as found:
        early = await found.client.get("/v1/items/item-1")
        not_ready = await found.client.get("/v1/ready/")
        async with toy_server(Toy(), port=ports["first"]):

            async def first_is_served() -> bool:
                return (await found.client.get("/v1/items/item-1")).status_code == 200

            await eventually(first_is_served)
            waiting = await found.client.get("/v1/others/item-1")
            async with toy_server(Toy(), catalog=other_catalog(), service="toy.v1.OtherService", port=ports["second"]):
                await found.gateway.ready()
                there = await found.client.get("/v1/others/item-1")
                unknown = await found.client.get("/v1/nothing")
                ready = await found.client.get("/v1/ready/")
            gone = await found.client.get("/v1/others/item-1")
            other = await found.client.get("/v1/items/item-1")

    assert (early.status_code, early.json()["error_code"]) == (503, "SERVICE_UNAVAILABLE")
    assert early.headers["retry-after"] == "1"
    assert (not_ready.status_code, not_ready.json()["waiting_for"]) == (503, ["first", "second"])
    assert (waiting.status_code, waiting.json()["error_code"]) == (503, "SERVICE_UNAVAILABLE")
    assert (there.status_code, unknown.status_code, ready.status_code) == (200, 404, 200)
    assert (gone.status_code, gone.json()["error_code"]) == (503, "SERVICE_UNAVAILABLE")
    assert other.status_code == 200
    for channel in channels.values():
        await channel.close()


async def test_a_contract_that_changed_is_served_after_a_restart():
    port = free_port()
    channel = bare_channel(f"127.0.0.1:{port}", gateway_settings())
    async with front({"toy": channel}) as found:

        async def status(path: str) -> int:
            return (await found.client.get(path)).status_code

        async with toy_server(
            Toy(), catalog=other_catalog("/v1/old/{item_id}"), service="toy.v1.OtherService", port=port
        ):
            await found.gateway.ready()
            assert await status("/v1/old/item-1") == 200
        assert await status("/v1/old/item-1") == 503
        async with toy_server(
            Toy(), catalog=other_catalog("/v1/new/{item_id}"), service="toy.v1.OtherService", port=port
        ):

            async def renewed() -> bool:
                return await status("/v1/new/item-1") == 200

            await eventually(renewed)
            assert await status("/v1/old/item-1") == 404
    await channel.close()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_either_version_of_reflection_will_do(version: str):
    async with toy_server(Toy(), versions=version) as port:
        channel = bare_channel(f"127.0.0.1:{port}", gateway_settings())
        found = await read(channel, timeout=10)
        await channel.close()

    assert found.services == (SERVICE,)
    assert Catalog(found.files, found.services).message("toy.v1.Item")


async def test_a_server_without_reflection_says_so():
    async with toy_server(Toy(), versions="none") as port:
        channel = bare_channel(f"127.0.0.1:{port}", gateway_settings())
        with pytest.raises(ReflectionError):
            await read(channel, timeout=10)
        await channel.close()


async def test_a_gateway_without_services_is_ready_and_knows_nothing():
    async with front({}) as found:
        assert (await found.client.get("/v1/ready/")).status_code == 200
        assert (await found.client.get("/v1/items/")).status_code == 404
        assert isinstance(found.client, httpx.AsyncClient)
