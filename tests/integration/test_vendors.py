"""Conversations with vendors of models over their real wire: words, tool calls, and every way in which they fail."""

from __future__ import annotations

import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from letta.agent.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from tests.callers import CLAUDE, OPENAI, orphans, texts
from tests.fakes.wire import Fault, Say

INSERT = ("memory_insert", {"label": "human", "new_string": "Likes tea."})
FAULTS = {
    "key": (Fault(status=401), 401, "LLM_AUTHENTICATION"),
    "rate": (Fault(status=429, headers={"retry-after": "60"}), 429, "LLM_RATE_LIMIT"),
    "bad": (Fault(status=400), 400, "LLM_BAD_REQUEST"),
    "broken": (Fault(status=500), 503, "LLM_UNAVAILABLE"),
    "overloaded": (Fault(status=529), 503, "LLM_UNAVAILABLE"),
    "reset": (Fault("reset"), 503, "LLM_UNAVAILABLE"),
    "garbage": (Fault("garbage"), 502, "LLM_INVALID_RESPONSE"),
    "hang": (Fault("hang"), 504, "LLM_TIMEOUT"),
}


@pytest.fixture(params=["openai", "anthropic"])
async def vendor(request, openai, anthropic):
    return {"openai": openai, "anthropic": anthropic}[request.param]


@pytest.fixture
async def agent_id(api, vendor, openai):
    blocks = [{"label": "human", "value": "Name: Sam."}]
    return await api.agent(OPENAI if vendor is openai else CLAUDE, memory_blocks=blocks)


@pytest.fixture
async def runs(server):
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        yield run_service_pb2_grpc.RunServiceStub(channel)


def asked(vendor):
    return [request.body for request in vendor.requests if request.body and "messages" in request.body]


async def test_a_message_is_answered(api, vendor, agent_id):
    vendor.say("Hello Sam.")
    answer = await api.say(agent_id, "Hi!")

    assert texts(answer["messages"], "assistant_message") == ["Hello Sam."]
    assert answer["stop_reason"]["stop_reason"] == "end_turn"
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (11, 7)
    [body] = asked(vendor)
    assert "Name: Sam." in str(body)
    assert "Hi!" in str(body["messages"][-1])


async def test_a_tool_call_changes_memory_and_its_result_goes_back(api, vendor, agent_id):
    vendor.say(Say("I note that.", calls=[INSERT]), "Noted.")
    answer = await api.say(agent_id, "I like tea.")

    kinds = [message["message_type"] for message in answer["messages"]]
    assert kinds == ["assistant_message", "tool_call_message", "tool_return_message", "assistant_message"]
    first, second = asked(vendor)
    assert "Likes tea." not in str(first["messages"])
    assert "Likes tea." in str(second)
    assert orphans(await api.history(agent_id)) == []
    block = (await api.http.get(f"/v1/agents/{agent_id}/core-memory/blocks/human")).json()
    assert "Likes tea." in block["value"]


async def test_several_calls_of_one_answer_are_all_executed_and_answered(api, vendor, agent_id):
    await api.http.patch(f"/v1/agents/{agent_id}", json={"parallel_tool_calls": True})
    calls = [("memory_insert", {"label": "human", "new_string": f"Fact {n}."}) for n in range(3)]
    vendor.say(Say(calls=calls), "All noted.")
    await api.say(agent_id, "Three facts.")

    listed = await api.history(agent_id)
    assert orphans(listed) == []
    block = (await api.http.get(f"/v1/agents/{agent_id}/core-memory/blocks/human")).json()
    assert all(f"Fact {n}." in block["value"] for n in range(3))


async def test_words_are_streamed_as_they_come(api, vendor, agent_id):
    text = "One two three four five six seven eight nine ten."
    vendor.say(Say(text, pause=0.03))
    events = await api.stream(agent_id, "Count.")

    pieces = texts(events, "assistant_message")
    assert len(pieces) > 2
    assert "".join(pieces) == text
    assert [event["message_type"] for event in events[-2:]] == ["stop_reason", "usage_statistics"]
    numbers = [event["seq_id"] for event in events if event.get("seq_id")]
    assert numbers == sorted(set(numbers))
    assert texts(await api.history(agent_id), "assistant_message") == [text]


async def test_a_streamed_tool_call_is_executed(api, vendor, agent_id):
    vendor.say(Say(calls=[INSERT]), "Noted.")
    events = await api.stream(agent_id, "I like tea.")

    kinds = [event["message_type"] for event in events]
    assert kinds.index("tool_call_message") < kinds.index("tool_return_message") < kinds.index("assistant_message")
    assert orphans(await api.history(agent_id)) == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failing_vendor_is_a_typed_error_and_the_conversation_goes_on(api, vendor, agent_id, fault):
    step, status, _ = FAULTS[fault]
    vendor.respond = lambda body: step
    answer = await api.send(agent_id, "Remember the boiler.")

    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["type"].startswith("llm_")
    [run] = await api.runs(agent_id)
    assert run["status"] == "failed"
    assert texts(await api.history(agent_id), "user_message") == []  # it is for the caller to send it again
    vendor.respond = vendor.default
    again = await api.say(agent_id, "Hello?")
    assert texts(again["messages"], "assistant_message")[0].endswith("Hello?")
    assert "Remember the boiler." not in str(asked(vendor)[-1]["messages"])


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failing_vendor_is_a_status_with_its_reason(runs, vendor, agent_id, fault):
    step, _, reason = FAULTS[fault]
    vendor.respond = lambda body: step
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await runs.SendMessage(sending(agent_id, "Hi!"), timeout=30)

    info = error_details_pb2.ErrorInfo()
    rpc_status.from_call(raised.value).details[0].Unpack(info)
    assert info.reason == reason
    assert info.metadata["run_id"].startswith("run-")
    assert "sk-" not in raised.value.details()
    vendor.respond = vendor.default
    assert (await runs.SendMessage(sending(agent_id, "Hello?"), timeout=30)).messages


@pytest.mark.parametrize("kind", ["reset", "hang", "cut", "garbage", "error"])
async def test_a_stream_that_breaks_says_so_and_the_conversation_goes_on(api, vendor, agent_id, kind):
    text = "This sentence never comes to its end because the vendor goes away."
    broken = Say(text, pieces_before_fault=5, fault=Fault(kind), pause=0.03)
    vendor.respond = lambda body: broken
    events = await api.stream(agent_id, "Remember the boiler.")

    assert "error" in str(events[-1]).lower(), events
    assert "usage_statistics" not in [event.get("message_type") for event in events]
    vendor.respond = vendor.default
    listed = await api.history(agent_id)
    assert texts(listed, "user_message") == []
    assert orphans(listed) == []
    again = await api.stream(agent_id, "Hello?")
    assert "".join(texts(again, "assistant_message")).endswith("Hello?")


async def test_a_stream_that_breaks_within_a_tool_call_leaves_no_call_behind(api, vendor, agent_id):
    broken = Say(calls=[INSERT], pieces_before_fault=4, fault=Fault("reset"), pause=0.02)
    vendor.respond = lambda body: broken
    await api.stream(agent_id, "I like tea.")

    vendor.respond = vendor.default
    assert orphans(await api.history(agent_id)) == []
    block = (await api.http.get(f"/v1/agents/{agent_id}/core-memory/blocks/human")).json()
    assert "tea" not in block["value"]
    await api.say(agent_id, "Hello?")
    assert "tool_use" not in str(asked(vendor)[-1]["messages"])
    assert "tool_calls" not in str(asked(vendor)[-1]["messages"])


async def test_a_vendor_that_fails_after_a_tool_call_leaves_the_call_and_its_return(api, vendor, agent_id):
    vendor.say(Say(calls=[INSERT]), *[Fault(status=400)] * 3)
    answer = await api.send(agent_id, "I like tea.")

    assert answer.status_code == 400
    vendor.script.clear()
    listed = await api.history(agent_id)
    assert orphans(listed) == []
    assert "tool_return_message" in [message["message_type"] for message in listed]
    await api.say(agent_id, "Hello?")


async def test_a_refusal_that_passes_is_not_noticed(api, vendor, agent_id):
    vendor.say(Fault(status=429, headers={"retry-after": "0"}), Fault("reset"), "Here I am.")
    answer = await api.say(agent_id, "Hi!")
    assert texts(answer["messages"], "assistant_message") == ["Here I am."]


async def test_arguments_that_cannot_be_read_do_not_break_the_conversation(api, vendor, agent_id):
    vendor.say(Say(calls=[("memory_insert", '{"label": "human", "new_string": ')]), "Sorry.")
    answer = await api.send(agent_id, "I like tea.")

    assert answer.status_code in (200, 502), answer.text
    vendor.script.clear()
    assert orphans(await api.history(agent_id)) == []
    await api.say(agent_id, "Hello?")


def sending(agent_id: str, text: str) -> run_service_pb2.SendMessageRequest:
    return run_service_pb2.SendMessageRequest(agent_id=agent_id, run=run_pb2.RunRequest(input_text=text))


async def test_a_vendor_that_keeps_failing_is_left_in_peace_and_its_callers_do_not_wait(api, openai):
    account = {"name": "own", "provider_type": "openai", "api_key": "sk-own", "base_url": openai.base_url}
    made = await api.http.post("/v1/providers/", json=account)
    assert made.status_code == 200, made.text
    agent_id = await api.agent("own/gpt-4o-mini")
    openai.respond = lambda body: Fault("reset")
    while (before := len(asked(openai))) < 8:
        assert (await api.send(agent_id, "Hi!")).status_code == 503
    answer = await api.http.post(f"/v1/agents/{agent_id}/messages", json={"input": "Hi!"}, timeout=10)

    assert answer.status_code == 503
    assert "not asked again" in answer.text
    assert len(asked(openai)) == before
