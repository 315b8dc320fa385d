"""Two processes' worth of boundary: a probe that asks an auth service, and a process that ends on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from letta.auth.v1 import credential_service_pb2 as pb
from letta.auth.v1 import credential_service_pb2_grpc
from letta.common.v1 import actor_pb2
from letta_common.actor import Actor
from letta_common.process.settings import Settings
from letta_local_channel import LocalChannel, LocalServer
from letta_rpc.auth_client import AuthClient
from letta_rpc.client import PeerChannel
from letta_rpc.process import boundary_for
from tests.support.rpc import ALL_SCOPES, Identities

ANN = Actor("org-a", "user-ann", ALL_SCOPES)


class CredentialServicer(credential_service_pb2_grpc.CredentialServiceServicer):
    def __init__(self, identities: Identities) -> None:
        self.identities = identities
        self.asked = 0

    async def ExchangeCredential(self, request: Any, context: Any) -> Any:
        signed = await self.identities.exchange(request.credential, request.user_id)
        return pb.ExchangeCredentialResponse(context=actor_pb2.SignedActorContext.FromString(signed))

    async def ListSigningKeys(self, request: Any, context: Any) -> Any:
        self.asked += 1
        key = await self.identities.public_key("test-key")
        return pb.ListSigningKeysResponse(signing_keys=[pb.SigningKey(id="test-key", public_key=key or b"")])


class Ticks:
    def __init__(self) -> None:
        self.seconds = 0

    def monotonic_ns(self) -> int:
        return self.seconds * 1_000_000_000

    def now(self) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def house(probes: Any, tmp_path: Path) -> Any:
    """Serve auth and the probe from one LocalServer whose boundary asks that same auth."""
    settings = Settings(home=tmp_path, dev_mode=True)
    local = LocalServer()
    local.intercept(boundary_for(settings, PeerChannel(LocalChannel(local), "boundary", settings.secret())))
    servicer = CredentialServicer(Identities({"lk_ann": ANN}))
    credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(servicer, local)
    probes.service.register(local)
    yield probes.stub(LocalChannel(local)), servicer
    await local.stop()


async def test_credential_is_exchanged_with_the_auth_service(probes: Any, tmp_path: Path) -> None:
    async with house(probes, tmp_path) as (stub, _):
        await stub.Read(probes.ask(), timeout=5, metadata=(("authorization", "Bearer lk_ann"),))
        assert probes.servicer.seen.actor == ANN

        await stub.Read(probes.ask(), timeout=5)
        assert probes.servicer.seen.actor.user_id.startswith("user-0000")

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Read(probes.ask(), timeout=5, metadata=(("authorization", "Bearer lk_bob"),))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_keys_are_kept_and_asked_for_again(tmp_path: Path) -> None:
    local, ticks = LocalServer(), Ticks()
    servicer = CredentialServicer(Identities())
    credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(servicer, local)
    client = AuthClient(PeerChannel(LocalChannel(local), "test", b"s"), ticks)
    asked = []
    for key_id, seconds in (("test-key", 0), ("test-key", 30), ("new-key", 1), ("new-key", 3), ("test-key", 61)):
        ticks.seconds += seconds
        found = await client.public_key(key_id)
        assert (found is not None) == (key_id == "test-key")
        asked.append(servicer.asked)

    assert asked == [1, 1, 2, 2, 3]


PROCESS = """
import sys
sys.path.insert(0, {directory!r})
from conftest import ProbeServicer, probe_service
from letta_rpc.process import run
from letta_common.process.settings import Settings

class ProbeSettings(Settings):
    service = "probe"

async def build(settings, deps):
    assert list(deps.channels) == ["memory"]
    return probe_service(ProbeServicer())

run(ProbeSettings, build, peers=("memory",))
"""


async def test_process_serves_until_sigterm(tmp_path: Path) -> None:
    code = PROCESS.format(directory=str(Path(__file__).parent))
    environment = {"LETTA_HOME": str(tmp_path), "LETTA_PROBE_BIND": "127.0.0.1:0", "PATH": "/usr/bin:/bin"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    line = await asyncio.wait_for(process.stderr.readline(), 60)
    process.send_signal(signal.SIGTERM)
    rest = await asyncio.wait_for(process.stderr.read(), 60)

    assert b'"event": "serving"' in line
    assert await process.wait() == 0, rest
