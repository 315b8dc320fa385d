"""gRPC errors as HTTP."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from letta.common.v1 import error_reason_pb2
from letta_transcode.http.errors import ErrorMap, http_status, violation_path

REASONS = ErrorMap(error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"])


def failure(code: grpc.StatusCode, text: str, *details: Any) -> grpc.aio.AioRpcError:
    status = status_pb2.Status(code=code.value[0], message=text)
    for each in details:
        status.details.add().Pack(each)
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, text)


def test_a_reason_decides_over_the_code():
    info = error_details_pb2.ErrorInfo(reason="MCP_TIMEOUT")

    assert REASONS.http(failure(grpc.StatusCode.DEADLINE_EXCEEDED, "slow", info)).status == 408
    assert ErrorMap().http(failure(grpc.StatusCode.DEADLINE_EXCEEDED, "slow", info)).status == 504


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_has_a_status(code: grpc.StatusCode):
    assert 400 <= http_status(code) <= 504


@pytest.mark.parametrize("code", [grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS])
def test_unexplained_failures_keep_their_text_to_themselves(code: grpc.StatusCode):
    found = REASONS.http(failure(code, "Unexpected <class 'KeyError'>: secret"))

    assert (found.status, found.body) == (500, {"detail": "An unknown error occurred"})


def test_a_short_delay_is_rounded_up():
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1))

    assert REASONS.http(failure(grpc.StatusCode.UNAVAILABLE, "x", retry)).headers == (("retry-after", "1"),)


def test_details_that_cannot_be_read_are_left_out():
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "gone")

    assert REASONS.http(error).body == {"detail": "gone"}


def test_an_error_without_a_status_is_unexpected():
    assert REASONS.http(grpc.RpcError()).status == 500


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b[0].c", ("a", "b", 0, "c")),
        ('labels["x.y"].z', ("labels", "x.y", "z")),
        ("", ()),
    ],
)
def test_paths_of_violations(text: str, path: tuple[Any, ...]):
    assert violation_path(text) == path
