"""The life of a server: interceptors, drain, TLS, and what happens to calls when it ends."""

from __future__ import annotations

import asyncio
import datetime
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz_pb2_grpc import ChannelzStub

from letta_common.clock import SystemClock
from letta_common.errors import RequestCancelled, ServiceUnavailable
from letta_common.process.settings import Settings
from letta_local_channel import LocalChannel, LocalServer
from letta_rpc.boundary import Boundary
from letta_rpc.client import connect
from letta_rpc.server import Server
from letta_rpc.service import Service
from tests.support.rpc import Identities


class Tagging(grpc.aio.ServerInterceptor):
    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.seen.append(f"{self.name} {handler_call_details.method.rpartition('/')[2]}")
        return await continuation(handler_call_details)


@pytest.mark.parametrize("transport", ["network", "local"])
async def test_interceptors_run_in_order(probes: Any, transport: str) -> None:
    seen: list[str] = []
    interceptors = [Tagging("first", seen), Tagging("second", seen)]
    server: Any = LocalServer(interceptors) if transport == "local" else grpc.aio.server(interceptors=interceptors)
    probes.service.register(server)
    if transport == "local":
        channel: Any = LocalChannel(server)
    else:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
    await probes.stub(channel).Read(probes.ask(), timeout=5)
    await channel.close()
    await server.stop(None)

    assert seen == ["first Read", "second Read"]


def boundary(settings: Settings) -> Boundary:
    identities = Identities()
    return Boundary(identities.verifier, identities, secret=settings.secret(), clock=SystemClock(), dev_mode=True)


async def running(service: Service, tmp_path: Path, **settings: Any) -> tuple[Server, Any]:
    chosen = Settings(bind="127.0.0.1:0", home=tmp_path, **settings)
    server = Server([service], chosen, boundary(chosen))
    await server.start()
    return server, connect(f"localhost:{server.port}", chosen, caller="test")


async def test_call_in_flight_is_finished_before_the_end(probes: Any, tmp_path: Path) -> None:
    server, channel = await running(probes.service, tmp_path, drain_seconds=20)
    call = asyncio.create_task(probes.stub(channel).Write(probes.ask("wait"), timeout=30))
    await asyncio.wait_for(probes.servicer.entered.wait(), 5)
    stopping = asyncio.create_task(server.stop(notice=0))
    await asyncio.sleep(0.1)
    probes.servicer.released.set()

    assert (await call).text == "wait"
    await stopping
    with pytest.raises(ServiceUnavailable):
        await probes.stub(channel).Write(probes.ask(), timeout=5)
    await channel.close()


async def test_call_that_takes_too_long_is_cut_off(probes: Any, tmp_path: Path) -> None:
    server, channel = await running(probes.service, tmp_path, drain_seconds=0)
    call = asyncio.create_task(probes.stub(channel).Write(probes.ask("hang"), timeout=30))
    await asyncio.wait_for(probes.servicer.entered.wait(), 5)
    await server.stop(notice=0)

    with pytest.raises((ServiceUnavailable, RequestCancelled)):
        await call
    await asyncio.wait_for(probes.servicer.cancelled.wait(), 5)
    await channel.close()


async def test_local_server_ends_as_a_network_one_does(probes: Any) -> None:
    server = LocalServer()
    probes.service.register(server)
    stub = probes.stub(LocalChannel(server))
    finished, hanging = stub.Write(probes.ask("wait"), timeout=30), stub.Write(probes.ask("hang"), timeout=30)
    await asyncio.wait_for(probes.servicer.entered.wait(), 5)
    asyncio.get_running_loop().call_later(0.05, probes.servicer.released.set)
    await server.stop(0.5)

    assert (await finished).text == "wait"
    with pytest.raises(grpc.aio.AioRpcError):
        await hanging
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Write(probes.ask(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_server_runs_the_background_work_of_its_services(probes: Any, tmp_path: Path) -> None:
    seen: list[str] = []

    async def note(what: str) -> None:
        seen.append(what)

    service = Service("probe", probes.service.servicers, lambda: note("start"), lambda: note("close"))
    server, channel = await running(service, tmp_path)
    await server.stop(notice=0)
    await channel.close()

    assert seen == ["start", "close"]


async def test_what_waits_for_calls_does_not_grow_with_the_methods(probes: Any, tmp_path: Path) -> None:
    """The loop of grpc.aio looks with every call at each task that waits for a registered method."""
    before = asyncio.all_tasks()
    server, channel = await running(probes.service, tmp_path)
    await probes.stub(channel).Read(probes.ask(), timeout=5)
    waiting = [task.get_coro().__qualname__ for task in asyncio.all_tasks() - before]
    await server.stop(notice=0)
    await channel.close()

    assert len([name for name in waiting if "_request_" in name]) <= 1, waiting


def certificate(directory: Path) -> dict[str, Path]:
    """Write a self-signed certificate for localhost that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (directory / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (directory / "cert.pem").write_bytes(made.public_bytes(pem))
    return {
        "tls_certificate": directory / "cert.pem",
        "tls_key": directory / "key.pem",
        "tls_ca": directory / "cert.pem",
    }


async def test_services_speak_mutual_tls(probes: Any, tmp_path: Path) -> None:
    server, channel = await running(probes.service, tmp_path, **certificate(tmp_path))
    plain = connect(f"localhost:{server.port}", Settings(home=tmp_path), caller="test")
    anonymous = grpc.aio.secure_channel(
        f"localhost:{server.port}", grpc.ssl_channel_credentials((tmp_path / "cert.pem").read_bytes())
    )

    assert (await probes.stub(channel).Read(probes.ask("x"), timeout=10)).text == "x"
    with pytest.raises(ServiceUnavailable):
        await probes.stub(plain).Write(probes.ask(), timeout=10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await probes.stub(anonymous).Write(probes.ask(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    for opened in (channel, plain, anonymous):
        await opened.close()
    await server.stop(notice=0)


async def test_channelz_tells_of_calls_on_a_port_of_its_own(probes: Any, tmp_path: Path) -> None:
    server, channel = await running(probes.service, tmp_path, channelz_bind="127.0.0.1:0")
    await probes.stub(channel).Write(probes.ask(), timeout=5)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.watchers.channelz_port}") as side:
        found = await ChannelzStub(side).GetServers(channelz_pb2.GetServersRequest(), timeout=5)
        channels = await ChannelzStub(side).GetTopChannels(channelz_pb2.GetTopChannelsRequest(), timeout=5)

    assert max(each.data.calls_succeeded for each in found.server) >= 1
    assert f"localhost:{server.port}" in " ".join(each.data.target for each in channels.channel)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as front:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ChannelzStub(front).GetServers(channelz_pb2.GetServersRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await channel.close()
    await server.stop(notice=0)


async def test_nothing_looks_into_a_process_unless_asked_for(probes: Any, tmp_path: Path) -> None:
    server, channel = await running(probes.service, tmp_path)

    assert server.watchers.channelz_port == 0
    await channel.close()
    await server.stop(notice=0)


async def test_a_taken_address_of_channelz_is_told(probes: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="the address is taken"):
        await running(probes.service, tmp_path, channelz_bind=f"127.0.0.1:{taken.getsockname()[1]}")
