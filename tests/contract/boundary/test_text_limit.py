"""One limit on text holds for every way in, over REST and gRPC, and what is just below it gets in."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from letta.common.v1 import limits_pb2
from letta_common.errors import Code, ValidationFailed
from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.contracts import Path, holding, leaves, longest, methods, name_of, refusal

MOST: int = limits_pb2.REQUEST_LIMIT_TEXT_CHARACTERS
LONG = "x" * (MOST + 1)
HALF = "y" * (MOST // 2 + 1)
MESSAGES = "/v1/agents/{agent_id}/messages"
RETURN = {"type": "tool", "tool_call_id": "call", "status": "success", "tool_return": LONG}
DENIAL = {"type": "approval", "tool_call_id": "call", "approve": False, "reason": LONG}
WRITES = ("Create", "Update", "Upsert", "Add", "Set", "Register")
REFUSALS = {
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.ABORTED,
    Code.FAILED_PRECONDITION,
    Code.PERMISSION_DENIED,
    Code.RESOURCE_EXHAUSTED,
    Code.UNIMPLEMENTED,
}
WAYS: dict[str, tuple[str, str, Any]] = {
    "passage": ("POST", "/v1/archives/{archive_id}/passages", {"text": LONG}),
    "passages": ("POST", "/v1/archives/{archive_id}/passages/batch", {"passages": [{"text": LONG}]}),
    "archival memory": ("POST", "/v1/agents/{agent_id}/archival-memory", {"text": LONG}),
    "block": ("POST", "/v1/blocks/", {"label": "x", "value": LONG, "limit": MOST * 2}),
    "block of an agent": ("PATCH", "/v1/agents/{agent_id}/core-memory/blocks/human", {"value": LONG}),
    "memory of a new agent": ("POST", "/v1/agents/", {"memory_blocks": [{"label": "x", "value": LONG}]}),
    "system prompt": ("PATCH", "/v1/agents/{agent_id}", {"system": LONG}),
    "input": ("POST", "/v1/agents/{agent_id}/messages", {"input": LONG}),
    "message": ("POST", "/v1/agents/{agent_id}/messages", {"messages": [{"role": "user", "content": LONG}]}),
    "parts of a message": (
        "POST",
        "/v1/agents/{agent_id}/messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": HALF}, {"type": "text", "text": HALF}]}]},
    ),
    "return of a tool of the client": ("POST", MESSAGES, {"messages": [{"type": "approval", "approvals": [RETURN]}]}),
    "tool returns": ("POST", MESSAGES, {"messages": [{"type": "tool_return", "tool_returns": [RETURN]}]}),
    "reason of a denial": ("POST", MESSAGES, {"messages": [{"type": "approval", "approvals": [DENIAL]}]}),
    "reason of one answer": ("POST", MESSAGES, {"messages": [{**DENIAL, "approval_request_id": "message-x"}]}),
    "system prompt of a new agent": ("POST", "/v1/agents/", {"system": LONG}),
    "system prompt of one run": ("POST", MESSAGES, {"input": "hi", "override_system": LONG}),
    "value of a block": ("PATCH", "/v1/blocks/{block_id}", {"value": LONG}),
    "streamed message": ("POST", "/v1/agents/{agent_id}/messages/stream", {"input": LONG}),
    "message of a conversation": ("POST", "/v1/conversations/{conversation_id}/messages", {"input": LONG}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_text_above_the_limit_is_refused_by_its_name(deployment: Deployment, way: str) -> None:
    method, path, body = WAYS[way]
    answer = deployment.caller.http.request(method, path.format(**deployment.caller.owned), json=body)

    assert answer.status_code in (400, 422), answer.text[:300]
    assert "characters" in answer.text
    assert len(answer.text) < 2000


def test_a_text_of_the_limit_is_taken(deployment: Deployment) -> None:
    answer = deployment.caller.http.post("/v1/blocks/", json={"label": "long", "value": LONG[1:], "limit": MOST})
    assert answer.status_code == 200, answer.text[:300]
    assert len(answer.json()["value"]) == MOST


def bearer(deployment: Deployment) -> tuple[str, str]:
    return "authorization", f"Bearer {deployment.caller.secret}"


def texts() -> list[tuple[Any, Path]]:
    """Return each text of the contracts that callers send, once for each service that takes it."""
    found = {}
    for method in methods():
        for path in leaves(method.input_type, FieldDescriptor.TYPE_STRING):
            found.setdefault((method.containing_service.full_name, path[-1].full_name, len(path) == 1), (method, path))
    return list(found.values())


TEXTS = texts()


def test_every_text_of_the_contracts_is_refused_by_its_field(deployment: Deployment) -> None:
    bad, asked = {}, 0
    for method, path in TEXTS:
        if longest(path) <= MOST:
            asked += 1
            request = holding(method, deployment.caller.owned, path, LONG)
            error = refusal(deployment.channel, method, request, bearer(deployment))
            named = isinstance(error, ValidationFailed) and any(names(field, path) for field in error.metadata)
            if not named or len(str(error)) > 4000:
                bad[f"{method.full_name} {name_of(path)}"] = repr(error)[:300]

    assert asked > 400
    assert bad == {}


def names(field: str, path: Path) -> bool:
    """Say whether the path in an error is a field's; numbers and keys of entries stand in brackets there."""
    told = re.sub(r"\[.*?\]", "", field).split(".")
    return told == [each.name for each in path if not each.containing_type.GetOptions().map_entry]


def test_the_longest_texts_of_different_words_are_kept_or_refused_by_name(deployment: Deployment) -> None:
    """Indexes have limits of their own, of words and of rows, which no request that the contract allows may meet."""
    words = _different_words()
    bad, asked = {}, 0
    for method, path in TEXTS:
        if method.name.startswith(WRITES):
            asked += 1
            request = holding(method, deployment.other.owned, path, words[: longest(path) or MOST])
            error = refusal(deployment.channel, method, request, ("authorization", f"Bearer {deployment.other.secret}"))
            if error is not None and (error.code not in REFUSALS or "for its index" in str(error)):
                bad[f"{method.full_name} {name_of(path)}"] = repr(error)[:300]

    assert asked > 100
    assert bad == {}


def _different_words() -> str:
    """Return a text that cannot be compressed much and repeats few words, of three bytes a character."""
    some = random.Random(1)
    words = ("".join(chr(some.randrange(0x4E00, 0x9FA5)) for _ in range(3)) for _ in range(MOST // 4))
    return " ".join(words)
