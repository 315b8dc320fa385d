"""Each error survives the way through a status and back."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from letta_common import errors
from letta_common.codes import Code
from letta_common.errors import BY_REASON, AppError, InternalError, ValidationFailed
from letta_rpc.rpc_errors import DETAILS_KEY, GRPC_CODES, from_rpc_error, to_status


def over_the_wire(error: AppError) -> AppError:
    status = to_status(error)
    trailing = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return from_rpc_error(grpc.aio.AioRpcError(GRPC_CODES[error.code], None, trailing, status.message))


def details(error: AppError) -> list[str]:
    return [detail.type_url.rpartition(".")[2] for detail in to_status(error).details]


def test_codes_are_numbered_as_grpc_does() -> None:
    assert {code: GRPC_CODES[code].value[0] for code in Code} == {code: code.value for code in Code}


@pytest.mark.parametrize("reason", sorted(BY_REASON))
def test_error_comes_back_as_its_class(reason: str) -> None:
    sent = BY_REASON[reason]("what happened", field="a.b", other="x")
    back = over_the_wire(sent)

    assert type(back) is type(sent)
    assert (back.message, back.metadata) == (sent.message, sent.metadata)


@pytest.mark.parametrize("reason", sorted(BY_REASON))
def test_details_follow_the_code(reason: str) -> None:
    error = BY_REASON[reason]("what happened", thing_id="x")
    expected = {
        Code.NOT_FOUND: ["ResourceInfo"],
        Code.FAILED_PRECONDITION: ["PreconditionFailure"],
        Code.UNAVAILABLE: ["RetryInfo"],
        Code.INVALID_ARGUMENT: ["BadRequest"] if reason == "VALIDATION_FAILED" else [],
    }.get(
        error.code,
        ["RetryInfo"] if reason in {"OVERLOADED", "RATE_LIMITED", "LLM_RATE_LIMIT", "CONVERSATION_BUSY"} else [],
    )

    assert details(error) == ["ErrorInfo", *expected]


def test_offending_field_is_named() -> None:
    bad = error_details_pb2.BadRequest()
    to_status(errors.InvalidArgument("unknown model", field="model")).details[1].Unpack(bad)

    assert [(v.field, v.description) for v in bad.field_violations] == [("model", "unknown model")]


def test_field_may_have_any_name() -> None:
    back = over_the_wire(ValidationFailed("two fields", **{"message": "too long", "a[0].self": "missing"}))

    assert back.metadata == {"message": "too long", "a[0].self": "missing"}


@pytest.mark.parametrize(("count", "size"), [(40, 10), (20, 200), (33, 20)])
def test_a_list_of_fields_that_is_cut_says_so_however_often_it_is_passed_on(count: int, size: int) -> None:
    sent = ValidationFailed("wrong", **{f"field{number}": "y" * size for number in range(count)})
    once = over_the_wire(sent)
    *named, (more, why) = once.metadata.items()

    assert named == list(sent.metadata.items())[: len(named)]
    assert (more, why.partition(";")[0]) == ("...", "more fields are wrong than there is room to name")
    assert over_the_wire(once).metadata == once.metadata


def test_a_list_of_fields_that_fits_is_whole() -> None:
    sent = ValidationFailed("wrong", **{f"field{number}": "y" * 60 for number in range(32)})

    assert over_the_wire(sent).metadata == sent.metadata


@pytest.mark.parametrize("character", ["x", "\u4e2d", "%"])
def test_a_message_that_is_cut_ends_in_dots(character: str) -> None:
    text = over_the_wire(errors.LLMBadRequest(character * 5_000)).message

    assert text == character * (len(text) - 3) + "..."
    assert over_the_wire(errors.LLMBadRequest(text[:-3])).message == text[:-3]


def test_retry_after_is_told() -> None:
    retry = error_details_pb2.RetryInfo()
    to_status(errors.RateLimited("slow down", retry_after="2.5")).details[1].Unpack(retry)

    assert retry.retry_delay.ToMilliseconds() == 2500


def test_long_texts_fit_into_metadata() -> None:
    error = errors.LLMBadRequest("x" * 100_000, detail="y" * 100_000)

    assert len(to_status(error).SerializeToString()) < 8 << 10


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.ServiceUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, errors.RequestCancelled),
        (grpc.StatusCode.UNIMPLEMENTED, errors.OperationUnimplemented),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Overloaded),
        (grpc.StatusCode.UNKNOWN, InternalError),
    ],
)
def test_bare_status_becomes_the_class_of_its_code(code: grpc.StatusCode, kind: type[AppError]) -> None:
    back = from_rpc_error(grpc.aio.AioRpcError(code, None, None, "failed to connect: ipv4:10.0.0.7:50051"))

    assert type(back) is kind
    assert back.message
    assert "10.0.0.7" not in back.message  # the transport's words are for the log


def test_reason_of_a_newer_release_becomes_the_class_of_its_code() -> None:
    class Newer(AppError):
        code = Code.UNAVAILABLE
        reason = "SOMETHING_NEW"

    assert type(over_the_wire(Newer("text"))) is errors.ServiceUnavailable


def test_contract_gives_an_example_of_each_reason() -> None:
    text = (Path(__file__).parents[3] / "proto/letta/common/v1/error_reason.proto").read_text()

    assert text.count("Example:") == len(BY_REASON)


LONG = [
    errors.LLMBadRequest("\u4e2d" * 5_000, detail="\u4e2d" * 5_000),
    errors.InvalidArgument("%" * 5_000, field="a" * 5_000),
    errors.AgentNotFound("\u4e2d" * 5_000, agent_id="\u4e2d" * 5_000),
    errors.RunNotActive("\n" * 5_000, run_id="\u4e2d" * 5_000),
    ValidationFailed("x" * 1_900 + "\u4e2d" * 100, **{f"field{number}": "y" * 50 for number in range(32)}),
    ValidationFailed("\u4e2d" * 5_000, **{f"field{number}": "\u4e2d" * 5_000 for number in range(32)}),
]


@pytest.mark.parametrize("error", LONG, ids=lambda error: f"{error.reason}-{error.message[0]!a}")
async def test_long_texts_of_any_script_reach_a_client_with_the_limits_of_grpc(error: AppError) -> None:
    async def refuse(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
        status = to_status(error)
        return await context.abort(
            GRPC_CODES[error.code],
            status.message,
            ((DETAILS_KEY, status.SerializeToString()), ("x-request-id", "r" * 128)),
        )

    server = grpc.aio.server()
    handlers = {"Refuse": grpc.unary_unary_rpc_method_handler(refuse)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Refusals", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(20):  # above a soft limit gRPC refuses some at random
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/test.Refusals/Refuse")(b"")
                assert type(from_rpc_error(caught.value)) is type(error)
    finally:
        await server.stop(None)
