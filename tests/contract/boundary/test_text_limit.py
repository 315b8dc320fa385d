"""One limit on text holds for every way in, over REST and gRPC, and what is just below it gets in."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from letta.common.v1 import limits_pb2
from letta.memory.v1 import (
    block_pb2,
    block_service_pb2,
    block_service_pb2_grpc,
    passage_service_pb2,
    passage_service_pb2_grpc,
)
from tests.contract.boundary.conftest import Deployment

MOST: int = limits_pb2.REQUEST_LIMIT_TEXT_CHARACTERS
LONG = "x" * (MOST + 1)
HALF = "y" * (MOST // 2 + 1)
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


def test_grpc_refuses_it_too(deployment: Deployment) -> None:
    blocks = block_service_pb2_grpc.BlockServiceStub(deployment.channel)
    passages = passage_service_pb2_grpc.PassageServiceStub(deployment.channel)
    archive = deployment.caller.owned["archive_id"]
    calls = (
        (blocks.CreateBlock, block_service_pb2.CreateBlockRequest(block=block_pb2.Block(label="x", value=LONG))),
        (
            passages.CreatePassage,
            passage_service_pb2.CreatePassageRequest(
                archive_id=archive, passage=passage_service_pb2.NewPassage(text=LONG)
            ),
        ),
    )
    for method, request in calls:
        with pytest.raises(grpc.RpcError) as raised:
            method(request, metadata=(("authorization", f"Bearer {deployment.caller.secret}"),), timeout=10)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
