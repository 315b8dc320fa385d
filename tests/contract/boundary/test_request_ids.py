"""A key of a request stands for one body: over every public method whose request has a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from letta_common.values.ids import new_id
from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.contracts import call, filled, methods

Code = grpc.StatusCode
READS = {"GetUpload"}
METHODS = {m.name: m for m in methods() if "request_id" in m.input_type.fields_by_name and m.name not in READS}
RUNS = {
    "SendMessage",
    "StreamMessage",
    "CreateRun",
    "SendConversationMessage",
    "StreamConversationMessage",
}
GOING_ON = RUNS | {"UploadFile"}
"""Their answers tell of the run or the file as it is now, so that two of them differ."""
COMPACTIONS = {"SummarizeMessages", "CompactConversation"}
"""They need long conversations: tests/contract/rpc/agent has them."""
BODIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "CreateAgent": lambda text: {
        "agent": {"name": text, "model": "builtin/echo", "secret_values": {"A": "1", "B": "2"}}
    },
    "CreateConversation": lambda text: {"summary": text},
    "ForkConversation": lambda text: {"agent_id": text, "message_id": None},
    "CreateBlock": lambda text: {"block": {"label": "notes", "value": text}},
    "CreateArchive": lambda text: {"name": text},
    "CreateIdentity": lambda text: {
        "identity": {"identifier_key": f"keyed {text}", "name": text, "identity_type": "IDENTITY_TYPE_USER"}
    },
    "CreateFolder": lambda text: {"name": f"keyed {text}"},
    "UploadFile": lambda text: {"file": {"file_name": text, "content": "eA==", "size": "1"}},
    "CreatePassage": lambda text: {"passage": {"text": text}},
    "CreatePassages": lambda text: {"passages": [{"text": "the same"}] * (2 + (text == "other"))},
    "CreateArchivalMemory": lambda text: {"text": text},
    "PurgePassages": lambda text: {"filter": {"tags": [text]}, "force": True},
    **dict.fromkeys(RUNS, lambda text: {"run": {"input_text": text}}),
}
"""A valid body of each method, that differs with the text."""


def bearer(deployment: Deployment) -> tuple[str, str]:
    return "authorization", f"Bearer {deployment.other.secret}"


def test_every_method_with_a_key_has_a_body_here() -> None:
    assert set(METHODS) == set(BODIES) | COMPACTIONS


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_key_stands_for_one_body(deployment: Deployment, name: str) -> None:
    method, key = METHODS[name], new_id("request")

    def sent(text: str) -> tuple[Code, Any]:
        request = filled(method, deployment.other.owned)
        json_format.ParseDict(BODIES[name](text), request)
        request.request_id = key
        return call(deployment.channel, method, request, bearer(deployment))

    first, again, other, after = sent("one"), sent("one"), sent("other"), sent("one")

    assert first[0] is Code.OK, first
    assert again[0] is after[0] is Code.OK
    assert other[0] is Code.ABORTED, other
    assert "another request was sent with this key" in other[1]
    assert name in GOING_ON or first == again == after
