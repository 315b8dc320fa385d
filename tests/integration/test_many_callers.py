"""Many callers at once: one run at a time in a conversation, one run a key, streams that others can follow."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc.aio
import httpx
import pytest

from letta.agent.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from letta_common.values.ids import uuid7
from tests.callers import Gate, events_of, orphans, texts, until
from tests.fakes.wire import Say

AGENTS = 50
SAME = 10


@pytest.fixture
async def agent_id(api):
    return await api.agent()


async def test_a_second_caller_is_told_which_run_is_in_the_way(api, openai, agent_id):
    async with Gate(openai) as gate:
        first = asyncio.create_task(api.send(agent_id, "First."))
        await gate.reached()
        second = await api.send(agent_id, "Second.", on_busy="reject")

        assert second.status_code == 409
        assert int(second.headers["retry-after"]) >= 1
        run = await api.running(agent_id)
        assert run["id"] in second.text
        gate.open.set()
        assert (await first).status_code == 200
    assert texts(await api.history(agent_id), "user_message") == ["First."]
    assert texts((await api.say(agent_id, "Third."))["messages"], "assistant_message") == ["You said: Third."]


async def test_who_waits_is_served_in_the_end(api, openai, agent_id):
    openai.respond = lambda body: Say("Yes.", pause=0.01)
    answers = await asyncio.gather(*(api.send(agent_id, f"Number {n}.", on_busy="wait") for n in range(SAME)))

    assert [answer.status_code for answer in answers] == [200] * SAME
    said = texts(await api.history(agent_id), "user_message")
    assert sorted(said) == sorted(f"Number {n}." for n in range(SAME))


async def test_runs_that_queue_are_worked_on_in_their_order(api, openai, agent_id):
    async with Gate(openai) as gate:
        begun = [await api.begin(agent_id, f"Number {n}.") for n in range(5)]
        await gate.reached()
        gate.open.set()
        ended = [await api.ended(run["id"]) for run in begun]

    assert [run["status"] for run in ended] == ["completed"] * 5
    assert texts(await api.history(agent_id), "user_message") == [f"Number {n}." for n in range(5)]
    assert gate.waiting == 5


async def test_an_interruption_ends_the_run_before(api, openai, agent_id):
    async with Gate(openai) as gate:
        first = asyncio.create_task(api.send(agent_id, "First."))
        await gate.reached()
        second = asyncio.create_task(api.send(agent_id, "Second.", on_busy="interrupt"))
        await gate.reached(2)
        gate.open.set()
        answers = await asyncio.gather(first, second)

    assert answers[0].json()["stop_reason"]["stop_reason"] == "cancelled"
    assert answers[1].status_code == 200
    assert texts(await api.history(agent_id), "user_message") == ["First.", "Second."]


async def test_the_same_otid_from_many_clients_is_one_run(api, openai, agent_id):
    message = {"role": "user", "content": "Only once.", "otid": str(uuid7())}
    path = f"/v1/agents/{agent_id}/messages"
    async with Gate(openai) as gate:
        sent = [asyncio.create_task(api.http.post(path, json={"messages": [message]})) for _ in range(SAME)]
        await gate.reached()
        gate.open.set()
        answers = await asyncio.gather(*sent)

    assert Counter(answer.status_code for answer in answers) == {200: SAME}, [answer.text for answer in answers]
    assert len({str(texts(answer.json()["messages"], "assistant_message")) for answer in answers}) == 1
    assert len({answer.json()["messages"][0]["id"] for answer in answers}) == 1
    assert gate.waiting == 1
    assert len(await api.runs(agent_id)) == 1
    assert texts(await api.history(agent_id), "user_message") == ["Only once."]


async def test_the_same_otid_with_other_words_is_refused(api, openai, agent_id):
    otid, path = str(uuid7()), f"/v1/agents/{agent_id}/messages"
    first = await api.http.post(path, json={"messages": [{"role": "user", "content": "One.", "otid": otid}]})
    second = await api.http.post(path, json={"messages": [{"role": "user", "content": "Two.", "otid": otid}]})

    assert (first.status_code, second.status_code) == (200, 409)
    assert texts(await api.history(agent_id), "user_message") == ["One."]


async def test_the_same_request_id_of_streams_is_one_run(server, openai, agent_id, api):
    request = run_service_pb2.StreamMessageRequest(
        agent_id=agent_id, run=run_pb2.RunRequest(input_text="Only once."), request_id=str(uuid7())
    )

    async def read(channel):
        call = run_service_pb2_grpc.RunServiceStub(channel).StreamMessage(request, timeout=60)
        return [event async for event in call if not event.message.HasField("ping")]

    openai.respond = lambda body: Say("One two three four five.", pause=0.02)
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        streams = await asyncio.gather(*(read(channel) for _ in range(5)))

    assert {len(events) for events in streams} == {len(streams[0])}
    assert len(await api.runs(agent_id)) == 1


async def test_fifty_agents_talk_at_once(api, openai):
    agents = await asyncio.gather(*(api.agent(memory_blocks=[{"label": "human", "value": ""}]) for _ in range(AGENTS)))

    async def talk(number: int, agent_id: str) -> None:
        fact = f"Secret of agent {number}."
        call = 'CALL memory_insert {"label": "human", "new_string": "' + fact + '"}'
        await api.say(agent_id, call)
        await api.say(agent_id, f"Hello from {number}.")
        block = (await api.http.get(f"/v1/agents/{agent_id}/core-memory/blocks/human")).json()
        assert block["value"].strip() == fact
        listed = await api.history(agent_id)
        assert texts(listed, "user_message") == [call, f"Hello from {number}."]
        assert orphans(listed) == []

    await asyncio.gather(*(talk(number, agent_id) for number, agent_id in enumerate(agents)))


async def test_a_listener_that_leaves_ends_its_run_and_the_vendors_answer(api, openai, agent_id):
    openai.say(Say("word " * 400, pause=0.05))
    path, body = f"/v1/agents/{agent_id}/messages/stream", {"input": "Talk.", "stream_tokens": True}
    async with api.http.stream("POST", path, json=body) as response:
        async for event in events_of(response):
            if event["message_type"] == "assistant_message":
                break
    await asyncio.wait_for(openai.gone.wait(), 30)
    [run] = await until(lambda: api.runs(agent_id), lambda runs: runs[0]["status"] == "cancelled")

    assert run["stop_reason"] == "cancelled"
    assert texts((await api.say(agent_id, "Still there?"))["messages"], "assistant_message")


async def test_a_background_run_goes_on_without_its_listener(api, openai, agent_id):
    text = "one two three four five six seven eight nine ten"
    openai.say(Say(text, pause=0.05))
    path = f"/v1/agents/{agent_id}/messages/stream"
    body = {"input": "Talk.", "stream_tokens": True, "background": True}
    seen = []
    async with api.http.stream("POST", path, json=body) as response:
        async for event in events_of(response):
            seen.append(event)
            if len(texts(seen, "assistant_message")) == 2:
                break
    run_id, last = seen[-1]["run_id"], seen[-1]["seq_id"]
    rest = await api.events(f"/v1/runs/{run_id}/stream", {"starting_after": last})
    whole = await api.events(f"/v1/runs/{run_id}/stream", {})

    assert (await api.run(run_id))["status"] == "completed"
    heard = [event for event in seen if event["message_type"] != "ping"] + rest
    assert "".join(texts(heard, "assistant_message")) == text
    assert "".join(texts(whole, "assistant_message")) == text
    numbers = [event["seq_id"] for event in whole if event.get("seq_id")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [event["seq_id"] for event in heard if event.get("seq_id")] == numbers


async def test_every_listener_of_a_run_hears_the_same(api, openai, agent_id):
    openai.say(Say("word " * 60, pause=0.02))
    run = await api.begin(agent_id, "Talk.", stream_tokens=True)
    heard = await asyncio.gather(*(api.events(f"/v1/runs/{run['id']}/stream", {}) for _ in range(5)))

    spoken = ["".join(texts(events, "assistant_message")) for events in heard]
    assert set(spoken) == {"word " * 60}


async def test_a_caller_that_leaves_does_not_end_the_run_it_waited_for(api, openai, agent_id):
    async with Gate(openai) as gate:
        path = f"/v1/agents/{agent_id}/messages"
        sent = asyncio.create_task(api.http.post(path, json={"input": "I must go."}))
        await gate.reached()
        sent.cancel()
        await asyncio.gather(sent, return_exceptions=True)
        run = await api.running(agent_id)
        gate.open.set()
        ended = await api.ended(run["id"])

    assert ended["status"] in ("completed", "cancelled")
    assert texts(await api.history(agent_id), "user_message") == ["I must go."]
    assert (await api.send(agent_id, "Back again.")).status_code == 200


async def test_a_deadline_that_passes_leaves_the_conversation_usable(server, api, openai, agent_id):
    async with Gate(openai) as gate, grpc.aio.insecure_channel(server.grpc_address) as channel:
        stub = run_service_pb2_grpc.RunServiceStub(channel)
        request = run_service_pb2.SendMessageRequest(agent_id=agent_id, run=run_pb2.RunRequest(input_text="Hurry!"))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.SendMessage(request, timeout=1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.open.set()
        [run] = await api.runs(agent_id)
        await api.ended(run["id"])
    assert (await api.send(agent_id, "Again.")).status_code == 200
    assert texts(await api.history(agent_id), "user_message") == ["Hurry!", "Again."]


async def test_a_run_is_cancelled_from_another_connection(server, api, openai, agent_id):
    async with Gate(openai) as gate:
        sent = asyncio.create_task(api.send(agent_id, "Take your time."))
        await gate.reached()
        run = await api.running(agent_id)
        async with httpx.AsyncClient(base_url=server.http_url) as other:
            cancelled = await other.post(f"/v1/runs/{run['id']}/cancel")
        assert cancelled.status_code == 200, cancelled.text
        answer = await sent

    assert answer.status_code == 200
    assert answer.json()["stop_reason"]["stop_reason"] == "cancelled"
    assert (await api.run(run["id"]))["status"] == "cancelled"
    assert texts(await api.history(agent_id), "user_message") == ["Take your time."]
    assert (await api.send(agent_id, "Next.")).status_code == 200


async def test_a_cancelled_run_stops_the_vendor_in_the_middle_of_its_answer(api, openai, agent_id):
    openai.say(Say("word " * 400, pause=0.05))
    run = await api.begin(agent_id, "Talk.", stream_tokens=True)
    await asyncio.wait_for(openai.asked.wait(), 30)
    await api.running(agent_id)
    cancelled = await api.http.post(f"/v1/agents/{agent_id}/messages/cancel", json={})

    assert cancelled.json() == {run["id"]: "cancelled"}
    await asyncio.wait_for(openai.gone.wait(), 30)
    assert orphans(await api.history(agent_id)) == []


async def test_a_run_that_has_ended_cannot_be_cancelled(api, agent_id):
    await api.say(agent_id, "Hi!")
    [run] = await api.runs(agent_id)
    answer = await api.http.post(f"/v1/runs/{run['id']}/cancel")
    assert answer.status_code in (400, 409), answer.text
    assert (await api.run(run["id"]))["status"] == "completed"


async def test_an_agent_that_is_deleted_during_a_run_is_gone(api, openai, agent_id):
    async with Gate(openai) as gate:
        sent = asyncio.create_task(api.send(agent_id, "Hold on."))
        await gate.reached()
        run = await api.running(agent_id)
        deleted = await api.http.delete(f"/v1/agents/{agent_id}")
        gate.open.set()
        answer = await sent
    assert deleted.status_code in (200, 409), deleted.text
    assert answer.status_code < 500, answer.text
    if deleted.status_code == 200:
        assert (await api.http.get(f"/v1/agents/{agent_id}")).status_code == 404
        ended = await api.http.get(f"/v1/runs/{run['id']}")
        assert ended.status_code == 404 or ended.json()["status"] not in ("created", "running")
