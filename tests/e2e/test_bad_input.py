"""Whatever is sent, one clear typed error comes back and the server goes on."""

from __future__ import annotations

import pytest

UNKNOWN = "00000000-0000-4000-8000-0000000000aa"


@pytest.fixture(autouse=True)
def still_alive(http, agent_id):
    yield
    assert http.get(f"/v1/agents/{agent_id}").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/agents/agent-{UNKNOWN}",
        f"/v1/agents/agent-{UNKNOWN}/messages",
        f"/v1/agents/agent-{UNKNOWN}/core-memory/blocks/human",
        f"/v1/blocks/block-{UNKNOWN}",
        f"/v1/archives/archive-{UNKNOWN}",
        f"/v1/messages/message-{UNKNOWN}",
        f"/v1/tools/tool-{UNKNOWN}",
        f"/v1/runs/run-{UNKNOWN}",
        f"/v1/steps/step-{UNKNOWN}",
        f"/v1/conversations/conv-{UNKNOWN}",
        f"/v1/providers/provider-{UNKNOWN}",
    ],
)
def test_an_unknown_id_is_not_found(http, path):
    answer = http.get(path)
    assert answer.status_code == 404
    assert UNKNOWN in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/agents/nope", "/v1/blocks/nope", "/v1/tools/nope", "/v1/runs/nope"])
def test_a_malformed_id_is_unprocessable(http, path):
    answer = http.get(path)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/agents/", {"memory_blocks": 5}),
        ("/v1/agents/", {"name": {"first": "x"}}),
        ("/v1/blocks/", {"label": ["human"], "value": "x"}),
        ("/v1/blocks/", {"value": "a label is required"}),
        ("/v1/tools/", {"source_code": 7}),
    ],
)
def test_a_wrong_type_is_unprocessable(http, path, body):
    assert http.post(path, json=body).status_code == 422


def test_too_long_a_label_is_unprocessable(http):
    assert http.post("/v1/blocks/", json={"label": "x" * 1000, "value": ""}).status_code == 422


def test_bad_json_is_refused(http):
    answer = http.post("/v1/blocks/", content=b'{"label": ', headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert "detail" in answer.json()


def test_a_wrong_method_is_not_allowed(http):
    answer = http.put("/v1/agents/count", json={})
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


def test_ten_megabytes_are_too_large(http):
    answer = http.post("/v1/blocks/", json={"label": "x", "value": "y" * 10_000_000})
    assert answer.status_code == 413


def test_an_unknown_path_is_not_found(http):
    assert http.get("/v1/nothing-here").status_code == 404


def test_a_model_that_does_not_exist_is_named(http):
    answer = http.post("/v1/agents/", json={"model": "openai/nope"})
    assert answer.status_code == 404
    assert "openai/nope" in answer.json()["detail"]


def test_a_word_that_is_none_of_a_set_is_told_which_there_are(http, agent_id):
    settings = {"model_settings": {"thinking": {"type": "maybe", "budget_tokens": 2048}}}
    asked = {"input": "hi", "include_return_message_types": ["no_message"]}
    thinking = http.patch(f"/v1/agents/{agent_id}", json=settings)
    kinds = http.post(f"/v1/agents/{agent_id}/messages", json=asked)

    assert (thinking.status_code, kinds.status_code) == (422, 422)
    assert "'enabled' or 'disabled'" in thinking.json()["detail"]
    assert "'assistant_message'" in kinds.json()["detail"]


def test_neither_messages_nor_input_is_unprocessable(http, agent_id):
    assert http.post(f"/v1/agents/{agent_id}/messages", json={}).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/agents/{agent}"),
        ("DELETE", "/v1/agents/{agent}"),
        ("GET", "/v1/agents/{agent}/messages"),
        ("GET", "/v1/agents/{agent}/core-memory/blocks"),
        ("GET", "/v1/agents/{agent}/archival-memory"),
        ("GET", "/v1/blocks/{block}"),
        ("DELETE", "/v1/blocks/{block}"),
    ],
)
def test_another_organizations_id_is_not_found(http, stranger, agent_id, method, path):
    block_id = http.get(f"/v1/agents/{agent_id}/core-memory/blocks/human").json()["id"]
    url = path.format(agent=agent_id, block=block_id)
    assert stranger.request(method, url).status_code == 404


def test_a_stranger_cannot_talk_to_the_agent(http, stranger, agent_id):
    before = http.get(f"/v1/agents/{agent_id}/messages").json()
    assert stranger.post(f"/v1/agents/{agent_id}/messages", json={"input": "hi"}).status_code == 404
    assert http.get(f"/v1/agents/{agent_id}/messages").json() == before


def test_a_stranger_sees_nothing_of_others(stranger):
    assert stranger.get("/v1/agents/").json() == []
    assert stranger.get("/v1/blocks/").json() == []
