"""What the boundary does for every call, over the network and in process."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import REGISTRY

from letta_common.actor import Actor, acting_as
from letta_common.errors import (
    BlockNotFound,
    DatabaseUnavailable,
    DeadlineExceeded,
    InternalError,
    LLMUnavailable,
    OperationUnimplemented,
    PermissionDenied,
    RequestCancelled,
    Unauthenticated,
    ValidationFailed,
)
from letta_rpc.rpc_errors import from_rpc_error
from tests.callers import until
from tests.contract.transport.conftest import HandClock
from tests.support.rpc import ALL_SCOPES, DEFAULT_ORGANIZATION, Identities

ANN = Actor("org-a", "user-ann", ALL_SCOPES)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def read(probe: Any) -> Any:
    return await probe.stub.Stream(probe.ask("bug"), timeout=5).read()


async def test_error_of_the_domain_arrives_as_the_same_class(probe: Any) -> None:
    with pytest.raises(BlockNotFound) as caught:
        await probe.stub.Read(probe.ask("missing"), timeout=5)

    assert caught.value.metadata == {"block_id": "block-1"}
    assert caught.value.message == "block block-1 does not exist"
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)


async def test_error_of_a_stream_arrives_as_the_same_class(probe: Any) -> None:
    with pytest.raises(BlockNotFound):
        async for _ in probe.stub.Stream(probe.ask("missing", count=1), timeout=5):
            pass


async def test_status_has_details_for_callers_in_any_language(probe: Any) -> None:
    error = await refused(probe.bare.Read(probe.ask("missing"), timeout=5, metadata=(("x-request-id", "req-1"),)))
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info, resource = error_details_pb2.ErrorInfo(), error_details_pb2.ResourceInfo()

    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(resource)
    assert (info.reason, info.domain, dict(info.metadata)) == ("BLOCK_NOT_FOUND", "letta", {"block_id": "block-1"})
    assert (resource.resource_type, resource.resource_name) == ("block", "block-1")
    assert (status.code, status.message) == (error.code().value[0], error.details())
    assert trailing["x-request-id"] == "req-1"


@pytest.mark.parametrize("kind", ["Read", "Stream"])
async def test_fault_says_nothing_to_the_caller_and_all_to_the_log(probe: Any, kind: str) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(InternalError) as caught:
        await (probe.stub.Read(probe.ask("bug"), timeout=5) if kind == "Read" else read(probe))

    assert "secret" not in str(caught.value) + str(caught.value.metadata)
    assert [str(line["exc_info"]) for line in logs if line["log_level"] == "error"] == ["secret detail"]


async def test_broken_rule_of_the_contract_names_the_field(probe: Any) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await probe.stub.Read(probe.ask(count=-1), timeout=5)

    assert caught.value.metadata == {"count": "must be greater than or equal to 0"}
    assert probe.servicer.calls == 0


async def test_more_broken_values_than_are_named_are_mentioned(probe: Any) -> None:
    request = probe.ask()
    request.tags.extend(["\0"] * 40)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await probe.bare.Read(request, timeout=5)

    assert list(from_rpc_error(caught.value).metadata) == [*(f"tags[{number}]" for number in range(32)), "..."]


async def test_status_cancelled_of_the_callee_is_an_error(probe: Any) -> None:
    with pytest.raises(RequestCancelled):
        await probe.stub.Read(probe.ask("abort"), timeout=5)


async def test_too_little_time_is_refused(probe: Any) -> None:
    with pytest.raises(DeadlineExceeded):
        await probe.stub.Write(probe.ask(), timeout=0.05)

    assert probe.servicer.calls == 0


async def test_deadline_is_reported_by_the_server(probe: Any) -> None:
    with pytest.raises(DeadlineExceeded):
        await probe.stub.Read(probe.ask("hang"), timeout=0.3)

    await asyncio.wait_for(probe.servicer.cancelled.wait(), 5)


async def test_reads_are_retried_when_unavailable(probe: Any) -> None:
    probe.servicer.failures = [DatabaseUnavailable("down"), DatabaseUnavailable("down")]

    assert (await probe.stub.Read(probe.ask("x"), timeout=10)).text == "x"
    assert probe.servicer.calls == 3


@pytest.mark.parametrize(
    ("method", "failure"), [("Write", DatabaseUnavailable), ("Read", LLMUnavailable), ("Read", BlockNotFound)]
)
async def test_other_failures_are_not_retried(probe: Any, method: str, failure: type[Exception]) -> None:
    probe.servicer.failures = [failure("no")]

    with pytest.raises(failure):
        await getattr(probe.stub, method)(probe.ask(), timeout=10)
    assert probe.servicer.calls == 1


async def test_call_of_a_service_carries_its_actor_and_request(start: Any) -> None:
    async with start(dev_mode=False) as probe:
        signed = probe.identities.sign(ANN)
        with acting_as(signed, request_id="req-7"):
            await probe.stub.Read(probe.ask(), timeout=5)
        seen = probe.servicer.seen

        assert (ANN, "req-7", "test", signed) == (seen.actor, seen.request_id, seen.caller, seen.signed_actor)
        assert seen.deadline is not None


async def test_caller_without_a_credential_is_refused(start: Any) -> None:
    async with start(dev_mode=False) as probe:
        with pytest.raises(Unauthenticated):
            await probe.stub.Read(probe.ask(), timeout=5)

        assert (await refused(probe.bare.Read(probe.ask(), timeout=5))).code() is grpc.StatusCode.UNAUTHENTICATED
        assert probe.servicer.calls == 0


async def test_dev_mode_serves_the_default_user_or_the_named_one(probe: Any) -> None:
    await probe.bare.Read(probe.ask(), timeout=5)
    default = probe.servicer.seen.actor
    await probe.bare.Read(probe.ask(), timeout=5, metadata=(("user_id", "user-bob"),))

    assert default.organization_id == DEFAULT_ORGANIZATION
    assert probe.servicer.seen.actor.user_id == "user-bob"


async def test_credential_is_exchanged_once_and_never_logged(start: Any) -> None:
    async with start(Identities({"lk_key": ANN}), dev_mode=False) as probe:
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                await probe.bare.Read(probe.ask(), timeout=5, metadata=(("authorization", "Bearer lk_key"),))
            call = probe.bare.Read(probe.ask("bug"), timeout=5, metadata=(("authorization", "bearer lk_key"),))
            await refused(call)
            wrong = probe.bare.Read(probe.ask(), timeout=5, metadata=(("authorization", "Bearer lk_wrong"),))
            error = await refused(wrong)

        assert probe.servicer.seen.actor == ANN
        assert probe.identities.exchanges == 2
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "lk_" not in json.dumps(logs, default=repr) + str(error)


class ShortLived(Identities):
    """Credentials that end in five seconds: what is signed for them ends with them."""

    async def exchange(self, credential: str, user_id: str) -> bytes:
        self.exchanges += 1
        if self.exchanges > 1:
            raise Unauthenticated("expired credential")
        return self.signer.sign(ANN, lifetime=timedelta(seconds=5))


async def test_a_remembered_credential_ends_when_the_key_does(start: Any) -> None:
    clock = HandClock()
    bearer = (("authorization", "Bearer lk_key"),)
    async with start(ShortLived(clock=clock), dev_mode=False, clock=clock) as probe:
        await probe.bare.Read(probe.ask(), timeout=5, metadata=bearer)
        clock.at += timedelta(seconds=4)
        await probe.bare.Read(probe.ask(), timeout=5, metadata=bearer)
        assert probe.identities.exchanges == 1
        clock.at += timedelta(seconds=1)
        error = await refused(probe.bare.Read(probe.ask(), timeout=5, metadata=bearer))

        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert probe.servicer.calls == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x0a\x01x"])
async def test_forged_actor_is_refused(start: Any, damage: bytes) -> None:
    async with start() as probe:
        error = await refused(probe.bare.Read(probe.ask(), timeout=5, metadata=probe.posing(damage)))

        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_actor_of_another_signer_is_refused(start: Any) -> None:
    async with start() as probe:
        signed = Identities().sign(ANN)
        error = await refused(probe.bare.Read(probe.ask(), timeout=5, metadata=probe.posing(signed)))

        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_scopes_decide_between_reading_and_writing(start: Any) -> None:
    async with start(dev_mode=False) as probe:
        reader = Actor("org-a", "user-r", frozenset({"read"}))
        with acting_as(probe.identities.sign(reader)):
            await probe.stub.Read(probe.ask(), timeout=5)
            with pytest.raises(PermissionDenied):
                await probe.stub.Write(probe.ask(), timeout=5)


async def test_internal_method_exists_for_services_alone(start: Any) -> None:
    async with start(dev_mode=False) as probe:
        metadata = (("x-letta-actor-bin", probe.identities.sign(ANN)),)
        outside = await refused(probe.bare.Hidden(probe.ask(), timeout=5, metadata=metadata))
        forged = await refused(
            probe.bare.Hidden(probe.ask(), timeout=5, metadata=(("x-letta-service-bin", b"agent:00"),))
        )
        await probe.stub.Hidden(probe.ask(), timeout=5)

        assert outside.code() is grpc.StatusCode.UNIMPLEMENTED
        assert forged.code() is grpc.StatusCode.UNAUTHENTICATED
        assert probe.servicer.seen.actor is None


async def test_absent_internal_method_cannot_be_told_from_a_hidden_one(start: Any) -> None:
    async with start() as probe:
        hidden = await refused(probe.bare.Hidden(probe.ask(), timeout=5))
        absent = await refused(probe.channel._inner.unary_unary("/letta.probe.v1.ProbeService/No")(b"", timeout=5))

        assert (hidden.code(), hidden.details()) == (absent.code(), absent.details())
        with pytest.raises(OperationUnimplemented):
            await probe.channel.unary_unary("/letta.probe.v1.ProbeService/No")(b"", timeout=5)


async def test_calls_are_counted_on_both_sides(probe: Any) -> None:
    method = {"service": "letta.probe.v1.ProbeService", "method": "Write"}

    async def counts() -> tuple[float, ...]:
        return tuple(
            REGISTRY.get_sample_value(name, labels) or 0
            for name, labels in (
                ("letta_rpc_total", {**method, "code": "OK"}),
                ("letta_rpc_total", {**method, "code": "NOT_FOUND"}),
                ("letta_client_rpc_total", {"method": "letta.probe.v1.ProbeService/Write"}),
            )
        )

    ok, missing, sent = await counts()
    await probe.stub.Write(probe.ask(), timeout=5)
    with pytest.raises(BlockNotFound):
        await probe.stub.Write(probe.ask("missing"), timeout=5)

    # a server counts a refused call after its caller has heard of it
    await until(counts, lambda now: now == (ok + 1, missing + 1, sent + 2))
