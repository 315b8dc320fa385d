"""Values at the edges of what fields can hold, over every method: answers are typed, and all that was kept is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.contracts import Path, call, filled, methods
from tests.contract.boundary.probes import FAULTS, Code, bearer, codes, raw

MESSAGE, STRING, ENUM = FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM
LONGEST = 315_576_000_000
READS = [
    method
    for method in methods()
    # Whether a provider answers is not this deployment's fault: its address here is of nobody.
    if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS and not method.name.startswith("Check")
]


@pytest.fixture(autouse=True)
def nothing_is_broken(deployment: Deployment) -> Iterator[None]:
    """Read everything by gRPC and by REST after a test, and find no fault there nor in the log of the test."""
    log = deployment.server.home / "server.log"
    begin = log.stat().st_size
    yield
    read = {
        method.full_name: call(deployment.channel, method, filled(method, deployment.caller.owned), bearer(deployment))
        for method in READS
    }
    shown = {path: deployment.caller.http.get(path).status_code for path in readable(deployment)}
    logged = log.read_bytes()[begin:]

    assert {name: answer for name, answer in read.items() if answer[0] in FAULTS} == {}
    assert {path: status for path, status in shown.items() if status >= 500 and status != 501} == {}
    assert b"Traceback" not in logged, logged[-4000:].decode()
    assert b"call failed" not in logged, logged[-4000:].decode()
    assert len(read) > 50
    assert len(shown) > 50


def readable(deployment: Deployment) -> Iterator[str]:
    """Yield the path of every route that reads, with the caller's ids in it."""
    document = httpx.get(f"{deployment.server.http_url}/openapi.json", timeout=60).json()
    for path, operations in document["paths"].items():
        if "get" in operations:
            yield path.format_map(defaultdict(lambda: "x", deployment.caller.owned))


def of(kind: Any) -> Callable[[Path], bool]:
    return lambda path: path[-1].message_type.full_name == kind.DESCRIPTOR.full_name


def faults(found: dict[str, Code]) -> dict[str, Code]:
    """Return what no caller should be answered; what is not there at all is told as such."""
    return {name: code for name, code in found.items() if code in FAULTS and code is not Code.UNIMPLEMENTED}


def taken(found: dict[str, Code]) -> dict[str, Code]:
    return {name: code for name, code in found.items() if code is not Code.INVALID_ARGUMENT}


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(LONGEST + 1, 0), (-LONGEST - 1, 0), (1, -1), (-1, 1), (1, 10**9), (0, -(10**9)), (2**63 - 1, 0)],
)
def test_spans_that_are_none_are_refused(deployment: Deployment, seconds: int, nanos: int) -> None:
    got = codes(deployment, MESSAGE, Duration(seconds=seconds, nanos=nanos), of(Duration))

    assert len(got) > 4
    assert taken(got) == {}


@pytest.mark.parametrize(("seconds", "nanos"), [(LONGEST, 0), (-LONGEST, 0), (-1, -1), (0, 1), (0, 0)])
def test_spans_of_any_length_are_no_fault(deployment: Deployment, seconds: int, nanos: int) -> None:
    assert faults(codes(deployment, MESSAGE, Duration(seconds=seconds, nanos=nanos), of(Duration))) == {}


@pytest.mark.parametrize("nanos", [-1, 10**9])
def test_moments_that_are_none_are_refused(deployment: Deployment, nanos: int) -> None:
    got = codes(deployment, MESSAGE, Timestamp(nanos=nanos), of(Timestamp))

    assert len(got) > 50
    assert taken(got) == {}


@pytest.mark.parametrize("seconds", [-62_135_596_800, 253_402_300_799])
def test_the_first_and_the_last_moment_are_no_fault(deployment: Deployment, seconds: int) -> None:
    assert faults(codes(deployment, MESSAGE, Timestamp(seconds=seconds, nanos=999_999_999), of(Timestamp))) == {}


@pytest.mark.parametrize("path", ["", "nothing", "*", ".", "id.", "name.x", "tags[0]", "\u00e4", "x" * 100_000])
def test_paths_of_no_field_are_refused(deployment: Deployment, path: str) -> None:
    got = codes(deployment, MESSAGE, FieldMask(paths=[path]), of(FieldMask))

    assert len(got) > 10
    assert taken(got) == {}


def test_messages_that_say_nothing_are_no_fault(deployment: Deployment) -> None:
    got = codes(deployment, MESSAGE, None, lambda path: not path[-1].message_type.GetOptions().map_entry)

    assert len(got) > 500
    assert faults(got) == {}


@pytest.mark.parametrize("text", ["[]", "null", "1e400", '{"type": 1, "properties": [], "enabled": 99}'])
def test_json_of_another_shape_is_no_fault(deployment: Deployment, text: str) -> None:
    got = codes(deployment, STRING, text, raw)

    assert len(got) > 50
    assert faults(got) == {}


@pytest.mark.parametrize("number", range(12))
def test_every_word_of_every_enum_is_no_fault(deployment: Deployment, number: int) -> None:
    got = codes(deployment, ENUM, number, lambda path: number in path[-1].enum_type.values_by_number)

    assert got
    assert faults(got) == {}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("BOOL", True),
        ("BYTES", b"\xff\0"),
        ("DOUBLE", 1e308),
        ("DOUBLE", 5e-324),
        ("FLOAT", -3e38),
        ("INT32", -1),
        ("INT64", -1),
    ],
)
def test_numbers_and_bytes_of_any_size_are_no_fault(deployment: Deployment, kind: str, value: Any) -> None:
    assert faults(codes(deployment, getattr(FieldDescriptor, f"TYPE_{kind}"), value)) == {}
