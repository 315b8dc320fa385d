"""Each RPC of RunService and StepService, over the network and in process."""

import json

import pytest

from letta.agent.v1 import run_pb2, run_service_pb2, step_pb2, step_service_pb2
from letta.common.v1 import message_pb2, sort_order_pb2, usage_pb2
from letta_common.errors import (
    ConversationBusy,
    CursorNotFound,
    IdempotencyConflict,
    LLMRateLimit,
    NoPendingApproval,
    PendingApproval,
    RunNotActive,
    RunNotFound,
    StepNotFound,
    ValidationFailed,
)
from letta_common.values.ids import new_id
from letta_messages.rendering import type_of

pb = run_service_pb2
DONE = run_pb2.RUN_STATUS_COMPLETED
RATE_LIMITED = {
    "message_type": "error_message",
    "error_type": "llm_rate_limit",
    "message": "the vendor wants us to wait",
}


async def got(stubs, run_id):
    return (await stubs.runs.GetRun(pb.GetRunRequest(run_id=run_id), timeout=5)).run


async def listed(stubs, **query):
    return [run.id for run in (await stubs.runs.ListRuns(pb.ListRunsRequest(**query), timeout=5)).runs]


async def begun(stubs, agent_id, text="hi", *, request_id=""):
    request = pb.CreateRunRequest(agent_id=agent_id, run=run_pb2.RunRequest(input_text=text), request_id=request_id)
    return (await stubs.runs.CreateRun(request, timeout=5)).run


async def followed(stubs, run_id, after=0):
    request = pb.StreamRunRequest(run_id=run_id, starting_after=after, include_pings=False)
    return [event async for event in stubs.runs.StreamRun(request, timeout=20)]


async def steps_of(stubs, run_id, **query):
    request = pb.ListRunStepsRequest(run_id=run_id, **query)
    return (await stubs.runs.ListRunSteps(request, timeout=5)).steps


async def test_a_message_is_answered(stubs):
    agent = await stubs.agent()
    answer = await stubs.send(agent.id, "hello")

    assert [type_of(message) for message in answer.messages] == ["assistant_message"]
    assert answer.messages[0].assistant_message.text == "hello"
    assert answer.stop_reason.stop_reason == usage_pb2.STOP_REASON_END_TURN
    assert answer.usage.step_count == 1
    run = await got(stubs, answer.run_id)
    assert (run.status, run.agent_id, run.stop_reason) == (DONE, agent.id, usage_pb2.STOP_REASON_END_TURN)
    assert (run.HasField("completed_at"), run.HasField("conversation_id")) == (True, False)


async def test_the_same_request_is_the_same_run(stubs):
    agent, key = await stubs.agent(), new_id("request")
    first, again = await stubs.send(agent.id, request_id=key), await stubs.send(agent.id, request_id=key)

    assert (first.run_id, list(first.messages)) == (again.run_id, list(again.messages))
    with pytest.raises(IdempotencyConflict):
        await stubs.send(agent.id, "something else", request_id=key)
    assert await listed(stubs, agent_id=agent.id) == [first.run_id]


async def test_a_busy_conversation_refuses_waits_queues_or_is_interrupted(stubs):
    agent = await stubs.agent()
    waiting = await stubs.held(agent.id)
    [holder] = await listed(stubs, active=True)
    with pytest.raises(ConversationBusy) as caught:
        await stubs.send(agent.id, on_busy=run_pb2.ON_BUSY_REJECT)
    assert caught.value.metadata["run_id"] == holder
    queued = await begun(stubs, agent.id, "queued")
    assert queued.status == run_pb2.RUN_STATUS_CREATED
    stubs.model.release.set()
    assert (await waiting).run_id == holder
    assert (await followed(stubs, queued.id))[0].message.assistant_message.text == "queued"

    waiting = await stubs.held(agent.id)
    answer = await stubs.send(agent.id, "now", on_busy=run_pb2.ON_BUSY_INTERRUPT)
    assert answer.messages[0].assistant_message.text == "now"
    assert (await waiting).stop_reason.stop_reason == usage_pb2.STOP_REASON_CANCELLED
    stubs.model.release.set()


async def test_a_failure_is_told_and_kept(stubs):
    agent = await stubs.agent()
    with pytest.raises(LLMRateLimit) as caught:
        await stubs.send(agent.id, "fail")

    run = await got(stubs, caught.value.metadata["run_id"])
    assert (run.status, run.stop_reason) == (run_pb2.RUN_STATUS_FAILED, usage_pb2.STOP_REASON_LLM_API_ERROR)
    assert json.loads(run.metadata)["error"] == RATE_LIMITED | {"run_id": run.id}
    [step] = await steps_of(stubs, run.id)
    found = (await stubs.steps.GetStep(step_service_pb2.GetStepRequest(step_id=step.id), timeout=5)).step
    assert (found.status, found.stop_reason) == (step_pb2.STEP_STATUS_FAILED, usage_pb2.STOP_REASON_LLM_API_ERROR)
    assert found.error_type == "llm_rate_limit"
    assert found.error_data == step_pb2.StepError(message="the vendor wants us to wait", run_id=run.id)
    assert (found.model_handle, found.prompt_tokens) == ("builtin/echo", 0)
    with pytest.raises(LLMRateLimit):
        await followed(stubs, run.id)
    assert (await stubs.send(agent.id, "again")).messages[0].assistant_message.text == "again"


@pytest.mark.parametrize("by", ["request_id", "otid"])
async def test_a_failure_is_answered_again_to_the_same_request(stubs, by):
    agent, key = await stubs.agent(), new_id("request")
    said = run_pb2.MessageCreate(role="MESSAGE_ROLE_USER", text="fail", otid=key if by == "otid" else "")
    request = pb.SendMessageRequest(
        agent_id=agent.id,
        run=run_pb2.RunRequest(messages=[run_pb2.InputMessage(message_create=said)]),
        request_id=key if by == "request_id" else "",
    )
    failures = []
    for _ in range(2):
        with pytest.raises(LLMRateLimit) as caught:
            await stubs.runs.SendMessage(request, timeout=10)
        failures.append((str(caught.value), caught.value.metadata["run_id"]))

    assert failures[0] == failures[1]
    assert await listed(stubs, agent_id=agent.id) == [failures[0][1]]


async def test_a_tool_is_called(stubs):
    tool = await stubs.tool(body="return f'rolled {sides}'", parameters="sides: int", described=DESCRIBED)
    agent = await stubs.agent(tool_ids=[tool.id])

    answer = await stubs.send(agent.id, 'call roll {"sides": 6}')

    kinds = [type_of(message) for message in answer.messages]
    assert kinds == ["tool_call_message", "tool_return_message", "assistant_message"]
    assert answer.messages[1].tool_return_message.tool_return == "rolled 6"
    assert answer.usage.step_count == 2


DESCRIBED = """

    Args:
        sides (int): how many
    """


async def test_a_gated_call_waits_for_an_answer(stubs):
    tool = await stubs.tool(default_requires_approval=True)
    agent = await stubs.agent(tool_ids=[tool.id])
    asked = await stubs.send(agent.id, "call roll {}")
    assert asked.stop_reason.stop_reason == usage_pb2.STOP_REASON_REQUIRES_APPROVAL
    [request] = [m for m in asked.messages if m.HasField("approval_request_message")]
    with pytest.raises(PendingApproval):
        await stubs.send(agent.id, "and now?")

    def approval(call_id):
        given = message_pb2.ApprovalReturn(tool_call_id=call_id, approve=True)
        approvals = [message_pb2.Approval(approval_return=given)]
        return run_pb2.InputMessage(approval=run_pb2.ApprovalCreate(approvals=approvals))

    call_id = request.approval_request_message.tool_call.tool_call_id
    with pytest.raises(NoPendingApproval):
        await answered(stubs, agent.id, approval("call-other"))
    done = await answered(stubs, agent.id, approval(call_id))
    assert done.messages[0].tool_return_message.tool_return == "rolled"
    assert (await answered(stubs, agent.id, approval(call_id))).run_id == done.run_id


async def answered(stubs, agent_id, message):
    request = pb.SendMessageRequest(agent_id=agent_id, run=run_pb2.RunRequest(messages=[message]))
    return await stubs.runs.SendMessage(request, timeout=20)


@pytest.mark.parametrize("tokens", [False, True])
async def test_a_stream_tells_the_run_as_it_goes(stubs, tokens):
    agent = await stubs.agent()
    asked = run_pb2.RunRequest(input_text="hello", stream_tokens=tokens, include_pings=True)
    request = pb.StreamMessageRequest(agent_id=agent.id, run=asked)

    events = [event async for event in stubs.runs.StreamMessage(request, timeout=20)]

    assert type_of(events[0].message) == "ping"
    told = events[1:]
    assert [event.seq_id for event in told] == list(range(1, len(told) + 1))
    assert "".join(event.message.assistant_message.text for event in told if event.HasField("message")) == "hello"
    assert [event.WhichOneof("event") for event in told[-2:]] == ["stop_reason", "usage_statistics"]
    run_id = told[0].message.run_id
    assert [event.seq_id for event in await followed(stubs, run_id, after=1)] == [e.seq_id for e in told[1:]]


async def test_a_failed_stream_says_why_it_stopped(stubs):
    agent, events = await stubs.agent(), []
    request = pb.StreamMessageRequest(agent_id=agent.id, run=run_pb2.RunRequest(input_text="fail", include_pings=False))

    async def read():
        async for event in stubs.runs.StreamMessage(request, timeout=20):
            events.append(event)  # noqa: PERF401 - the stream fails

    with pytest.raises(LLMRateLimit):
        await read()
    assert [event.stop_reason.stop_reason for event in events] == [usage_pb2.STOP_REASON_LLM_API_ERROR]


async def test_a_run_in_the_background_is_followed(stubs):
    agent, key = await stubs.agent(), new_id("request")
    run = await begun(stubs, agent.id, "later", request_id=key)
    assert (await begun(stubs, agent.id, "later", request_id=key)).id == run.id
    assert (run.agent_id, run.background) == (agent.id, True)

    events = await followed(stubs, run.id)

    assert events[0].message.assistant_message.text == "later"
    assert (await got(stubs, run.id)).status == DONE


async def test_a_run_is_cancelled(stubs):
    agent = await stubs.agent()
    waiting = await stubs.held(agent.id)
    request = pb.ListActiveRunsRequest(agent_id=agent.id)
    [run] = (await stubs.runs.ListActiveRuns(request, timeout=5)).runs
    with pytest.raises(ConversationBusy):
        await stubs.runs.DeleteRun(pb.DeleteRunRequest(run_id=run.id), timeout=5)
    with stubs.bob(), pytest.raises(RunNotFound):
        await stubs.runs.CancelRun(pb.CancelRunRequest(run_id=run.id), timeout=5)

    cancelled = (await stubs.runs.CancelRun(pb.CancelRunRequest(run_id=run.id), timeout=10)).run

    assert cancelled.status == run_pb2.RUN_STATUS_CANCELLED
    assert (await waiting).stop_reason.stop_reason == usage_pb2.STOP_REASON_CANCELLED
    assert list((await stubs.runs.ListActiveRuns(request, timeout=5)).runs) == []
    with pytest.raises(RunNotActive):
        await stubs.runs.CancelRun(pb.CancelRunRequest(run_id=run.id), timeout=5)
    stubs.model.release.set()


async def test_all_runs_of_an_agent_are_cancelled(stubs):
    agent = await stubs.agent()
    done = (await stubs.send(agent.id)).run_id
    waiting = await stubs.held(agent.id)
    [running] = await listed(stubs, active=True)

    async def cancelled(*run_ids):
        request = pb.CancelAgentRunsRequest(agent_id=agent.id, run_ids=run_ids)
        return dict((await stubs.runs.CancelAgentRuns(request, timeout=10)).statuses)

    assert await cancelled() == {running: "cancelled"}
    assert await cancelled(done) == {done: "completed"}
    assert await cancelled() == {}
    await waiting
    stubs.model.release.set()


async def test_runs_are_listed_in_pages(stubs):
    agent, other = await stubs.agent(), await stubs.agent()
    made = [(await stubs.send(agent.id)).run_id for _ in range(4)]
    newest, elsewhere = made[::-1], (await stubs.send(other.id)).run_id

    assert await listed(stubs) == [elsewhere, *newest]
    assert await listed(stubs, agent_id=agent.id, limit=2) == newest[:2]
    assert await listed(stubs, agent_ids=[agent.id], after=newest[0], limit=2) == newest[1:3]
    assert await listed(stubs, agent_id=agent.id, before=newest[3], limit=2) == newest[1:3]
    assert await listed(stubs, agent_id=agent.id, order=sort_order_pb2.SORT_ORDER_ASC) == made
    assert await listed(stubs, agent_id=agent.id, compat={"ascending": True}, limit=1) == made[:1]
    assert await listed(stubs, statuses=[run_pb2.RUN_STATUS_FAILED]) == []
    assert await listed(stubs, stop_reason=usage_pb2.STOP_REASON_END_TURN, limit=1) == [elsewhere]
    await stubs.runs.DeleteRun(pb.DeleteRunRequest(run_id=newest[1]), timeout=5)
    assert await listed(stubs, agent_id=agent.id, after=newest[1]) == newest[2:]
    with pytest.raises(CursorNotFound):
        await listed(stubs, after="run-never")
    with stubs.bob():
        assert await listed(stubs) == []


async def test_a_run_of_another_organization_is_not_found(stubs):
    mine = (await stubs.send((await stubs.agent()).id)).run_id
    calls = [
        lambda i: got(stubs, i),
        lambda i: stubs.runs.DeleteRun(pb.DeleteRunRequest(run_id=i), timeout=5),
        lambda i: stubs.runs.CancelRun(pb.CancelRunRequest(run_id=i), timeout=5),
        lambda i: stubs.runs.GetRunUsage(pb.GetRunUsageRequest(run_id=i), timeout=5),
        lambda i: stubs.runs.GetRunMetrics(pb.GetRunMetricsRequest(run_id=i), timeout=5),
        lambda i: steps_of(stubs, i),
        lambda i: followed(stubs, i),
    ]
    for call in calls:
        with pytest.raises(RunNotFound):
            await call(new_id("run"))
        with stubs.bob(), pytest.raises(RunNotFound):
            await call(mine)
    with pytest.raises(ValidationFailed):
        await got(stubs, "agent-1")
    await stubs.runs.DeleteRun(pb.DeleteRunRequest(run_id=mine), timeout=5)
    with pytest.raises(RunNotFound):
        await stubs.runs.DeleteRun(pb.DeleteRunRequest(run_id=mine), timeout=5)


async def test_usage_metrics_and_steps_of_a_run(stubs):
    tool = await stubs.tool()
    agent = await stubs.agent(tool_ids=[tool.id])
    run_id = (await stubs.send(agent.id, "call roll {}")).run_id

    usage = (await stubs.runs.GetRunUsage(pb.GetRunUsageRequest(run_id=run_id), timeout=5)).usage
    metrics = (await stubs.runs.GetRunMetrics(pb.GetRunMetricsRequest(run_id=run_id), timeout=5)).metrics
    newest = [step.id for step in await steps_of(stubs, run_id)]

    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (list(metrics.tools_used), metrics.num_steps, metrics.duration.ToNanoseconds() > 0) == (["roll"], 2, True)
    assert len(newest) == 2
    assert [s.id for s in await steps_of(stubs, run_id, after=newest[0])] == newest[1:]
    assert [s.id for s in await steps_of(stubs, run_id, order=sort_order_pb2.SORT_ORDER_ASC, limit=1)] == newest[1:]


async def test_steps_are_read_listed_and_judged(stubs):
    agent = await stubs.agent()
    ids = []
    for _ in range(3):
        run_id = (await stubs.send(agent.id)).run_id
        ids += [step.id for step in await steps_of(stubs, run_id)]
    newest = ids[::-1]

    async def found(**query):
        request = step_service_pb2.ListStepsRequest(**query)
        return [step.id for step in (await stubs.steps.ListSteps(request, timeout=5)).steps]

    judged = step_service_pb2.SetStepFeedbackRequest(step_id=ids[0], feedback=step_pb2.FEEDBACK_POSITIVE, tags=["good"])
    step = (await stubs.steps.SetStepFeedback(judged, timeout=5)).step
    assert (step.feedback, list(step.tags)) == (step_pb2.FEEDBACK_POSITIVE, ["good"])
    assert (await stubs.steps.GetStep(step_service_pb2.GetStepRequest(step_id=ids[0]), timeout=5)).step == step
    request = step_service_pb2.GetStepMetricsRequest(step_id=ids[0])
    assert (await stubs.steps.GetStepMetrics(request, timeout=5)).metrics.duration.ToNanoseconds() > 0
    assert await found(agent_id=agent.id) == newest
    assert (await found(limit=1), await found(after=newest[0], limit=1)) == (newest[:1], newest[1:2])
    assert await found(before=newest[2]) == newest[:2]
    assert await found(order=sort_order_pb2.SORT_ORDER_ASC) == ids
    assert await found(has_feedback=True) == await found(tags=["good"]) == ids[:1]
    assert await found(feedback=step_pb2.FEEDBACK_NEGATIVE) == []
    assert (await found(model="builtin/echo"), await found(model="other/model")) == (newest, [])
    with pytest.raises(CursorNotFound):
        await found(after="step-never")


async def test_a_step_of_another_organization_is_not_found(stubs):
    run_id = (await stubs.send((await stubs.agent()).id)).run_id
    [step] = await steps_of(stubs, run_id)
    calls = [
        lambda i: stubs.steps.GetStep(step_service_pb2.GetStepRequest(step_id=i), timeout=5),
        lambda i: stubs.steps.GetStepMetrics(step_service_pb2.GetStepMetricsRequest(step_id=i), timeout=5),
        lambda i: stubs.steps.SetStepFeedback(step_service_pb2.SetStepFeedbackRequest(step_id=i), timeout=5),
    ]
    for call in calls:
        with pytest.raises(StepNotFound):
            await call(new_id("step"))
        with stubs.bob(), pytest.raises(StepNotFound):
            await call(step.id)


@pytest.mark.parametrize(("clears", "seen"), [(False, ["one", "one", "two"]), (True, ["two"])])
async def test_an_agent_that_forgets_begins_each_run_anew(stubs, clears, seen):
    agent = await stubs.agent(message_buffer_autoclear=clears)

    await stubs.send(agent.id, "one")
    await stubs.send(agent.id, "two")

    assert stubs.model.seen == seen


async def test_an_agent_that_forgets_remembers_what_it_asked_approval_for(stubs):
    tool = await stubs.tool(default_requires_approval=True)
    agent = await stubs.agent(tool_ids=[tool.id], message_buffer_autoclear=True)
    await stubs.send(agent.id, "earlier")
    asked = await stubs.send(agent.id, "call roll {}")
    call = asked.messages[-1].approval_request_message.tool_call
    given = message_pb2.ApprovalReturn(tool_call_id=call.tool_call_id, approve=True)
    approval = run_pb2.ApprovalCreate(approvals=[message_pb2.Approval(approval_return=given)])

    done = await answered(stubs, agent.id, run_pb2.InputMessage(approval=approval))

    assert done.messages[0].tool_return_message.tool_return == "rolled"
    assert (stubs.model.seen[0], "earlier" in stubs.model.seen) == ("call roll {}", False)
