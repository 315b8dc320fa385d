"""Whatever stands in a field of any request, the answer is typed: over every method of the contracts."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor

from letta_common.values.ids import new_id
from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.contracts import call, filled, keeps_nul, methods
from tests.contract.boundary.probes import FAULTS, bearer, codes, raw

Code = grpc.StatusCode
METHODS = methods()
TIME = "google.protobuf.Timestamp"
_KINDS = {
    "ListAgents": "agent",
    "ListAgentBlocks": "block",
    "ListAgentMessages": "message",
    "ListAgentTools": "tool",
    "ListArchives": "archive",
    "ListBlocks": "block",
    "ListConversations": "conv",
    "ListFolders": "source",
    "ListIdentities": "identity",
    "ListIdentityBlocks": "block",
    "ListMCPServers": "mcp_server",
    "ListMessages": "message",
    "ListProviders": "provider",
    "ListRunMessages": "message",
    "ListRuns": "run",
    "ListStepMessages": "message",
    "ListSteps": "step",
    "ListTools": "tool",
}
"""Of what kind the items of a list are, where the caller has some."""
UUID4 = "00000000-0000-4000-8000-0000000000aa"


def test_nul_is_refused_in_every_string_that_does_not_keep_it(deployment: Deployment) -> None:
    got = codes(deployment, FieldDescriptor.TYPE_STRING, "a\0b", lambda path: not keeps_nul(path))

    assert len(got) > 600
    assert {name: code for name, code in got.items() if code is not Code.INVALID_ARGUMENT} == {}


def test_texts_that_keep_nul_are_taken(deployment: Deployment) -> None:
    got = codes(deployment, FieldDescriptor.TYPE_STRING, "a\0b", keeps_nul)

    assert got
    assert {name: code for name, code in got.items() if code in FAULTS} == {}


def test_unknown_numbers_of_enums_are_refused(deployment: Deployment) -> None:
    for number in (999, -1, 2**31 - 1):
        got = codes(deployment, FieldDescriptor.TYPE_ENUM, number)

        assert got
        assert {name: code for name, code in got.items() if code is not Code.INVALID_ARGUMENT} == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(deployment: Deployment, value: float) -> None:
    for kind in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        got = codes(deployment, kind, value)

        assert {name: code for name, code in got.items() if code is not Code.INVALID_ARGUMENT} == {}


def test_json_text_that_is_none_is_refused(deployment: Deployment) -> None:
    got = codes(deployment, FieldDescriptor.TYPE_STRING, "{nothing", raw)

    assert got
    assert {name: code for name, code in got.items() if code is not Code.INVALID_ARGUMENT} == {}


@pytest.mark.parametrize("value", [2**31 - 1, -(2**31)])
def test_the_largest_numbers_are_no_fault(deployment: Deployment, value: int) -> None:
    got = codes(deployment, FieldDescriptor.TYPE_INT32, value)

    assert {name: code for name, code in got.items() if code in FAULTS} == {}


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63)])
def test_the_largest_long_numbers_are_no_fault(deployment: Deployment, value: int) -> None:
    got = codes(deployment, FieldDescriptor.TYPE_INT64, value, lambda path: path[-1].containing_type.full_name != TIME)

    assert {name: code for name, code in got.items() if code in FAULTS} == {}


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63), 253_402_300_800])
def test_moments_of_no_year_are_refused(deployment: Deployment, seconds: int) -> None:
    moment = lambda path: path[-1].containing_type.full_name == TIME  # noqa: E731
    got = codes(deployment, FieldDescriptor.TYPE_INT64, seconds, moment)

    assert got
    assert {name: code for name, code in got.items() if code is not Code.INVALID_ARGUMENT} == {}


@pytest.mark.parametrize("text", ['{"a": "\\u0000"}', '{"\\u0000": 1}', '["\\ud800"]', '{"a": "\\udc00x"}'])
def test_json_text_is_looked_into(deployment: Deployment, text: str) -> None:
    got = codes(deployment, FieldDescriptor.TYPE_STRING, text, lambda path: raw(path) and not keeps_nul(path))

    assert got
    assert {name: code for name, code in got.items() if code is not Code.INVALID_ARGUMENT} == {}


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05abc", b"\x0b" * 200, b"\x0a\x02\xff\xfe"])
def test_what_is_no_message_is_an_invalid_argument_of_a_known_caller(deployment: Deployment, data: bytes) -> None:
    got = {m.full_name: call(deployment.channel, m, data, bearer(deployment))[0] for m in METHODS}
    unknown = {m.full_name: call(deployment.channel, m, data)[0] for m in METHODS}

    assert {name: code for name, code in got.items() if code in FAULTS} == {}
    assert set(unknown.values()) == {Code.UNAUTHENTICATED}


@pytest.mark.parametrize("value", ["x" * 200, "a b", "../../etc", '{"level": "error"}'])
def test_request_ids_that_no_log_should_hold_are_replaced(deployment: Deployment, value: str) -> None:
    method = next(m for m in METHODS if m.name == "ListAgents")
    make = deployment.channel.unary_unary(f"/{method.containing_service.full_name}/{method.name}")
    with pytest.raises(grpc.RpcError) as caught:
        make(b"\xff", timeout=10, metadata=(bearer(deployment), ("x-request-id", value)))

    assert dict(caught.value.trailing_metadata())["x-request-id"] != value


def cursors(deployment: Deployment, noun: str) -> dict[str, str]:
    """Return what is no id of the list: nothing of it may be a fault."""
    mine = deployment.caller.owned
    return {
        "foreign": deployment.other.owned.get(noun, ""),
        "never": new_id("agent"),
        "never of the old kind": f"agent-{UUID4}",
        "malformed": "nonsense",
        "empty id": "agent-",
        "of another kind": mine["block_id"],
        "of another kind too": mine["agent_id"],
        "of a message": mine["message_id"],
        "a number": "9" * 30,
        "a future id": "agent-ffffffff-ffff-7fff-bfff-ffffffffffff",
        "sql": "' or 1=1 --",
        "percent": "%",
        "not ascii": "ä" * 20,
    }


def fits(method: Any, cursor: str, why: str) -> bool:
    """Say whether an item may have been there: of labels any text, else one of the kind of what is listed."""
    if method.name == "ListTags":
        return True
    if not why.startswith(("foreign", "never", "of a")):
        return False
    prefix = cursor.partition("-")[0]
    return prefix in _KINDS.get(method.name, prefix)


@pytest.mark.parametrize("key", ["before", "after"])
def test_cursors_that_are_of_no_item_have_a_typed_answer(deployment: Deployment, key: str) -> None:
    bad = {}
    lists = [m for m in METHODS if {"before", "after"} <= set(m.input_type.fields_by_name)]
    for method in lists:
        for why, cursor in cursors(deployment, "agent_id").items():
            for order in (0, 1, 2):
                request = filled(method, deployment.caller.owned)
                setattr(request, key, cursor)
                if "order" in method.input_type.fields_by_name:
                    request.order = order
                code, text = call(deployment.channel, method, request, bearer(deployment))
                if code not in (Code.OK, Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED):
                    bad[f"{method.name} {why}"] = (code, text)
                if code is Code.OK and not fits(method, cursor, why):
                    bad[f"{method.name} {why}"] = (code, text)

    assert len(lists) > 20
    assert sorted(bad) == []
