"""Executions: once for each key, whatever happens in between."""

import asyncio
from dataclasses import replace

import pytest

from letta.tools.v1.tool_execution_service_pb2 import ToolSource
from letta_common.actor import Actor
from letta_common.errors import IdempotencyConflict, InvalidArgument, IsolationUnavailable, ToolNotFound
from letta_sandbox.calls import CallEnding, CallUsage, Isolation, Limits, Result, ToolFailure
from letta_tools.domain.executions.executions import Execution, Executions, Intent
from letta_tools.domain.executions.outcomes import Outcome, read_outcome, return_text, write_outcome
from letta_tools.domain.registry.records import RegisteredTool, ToolType
from tests.fakes.tools.stores import FakeExecutionStore

ANN = Actor("org-ann", "user-ann")
TOOL = RegisteredTool(id="tool-1", name="roll", source_code="def roll(): ...", version=3)
MOST = Limits(timeout_seconds=9.0)


class Registry:
    def __init__(self, *tools):
        self.tools = {tool.id: tool for tool in tools}
        self.lookups = 0

    async def get(self, actor, tool_id):
        self.lookups += 1
        if tool_id not in self.tools:
            raise ToolNotFound("no", tool_id=tool_id)
        return self.tools[tool_id]


class Sandbox:
    """Counts what it runs; waits while `gate` is closed."""

    def __init__(self):
        self.asked = asyncio.Event()
        self.ran = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure = None

    async def run(self, actor, work):
        if self.failure:
            raise self.failure
        self.asked.set()
        await self.gate.wait()
        self.ran.append(work)
        return Result(CallEnding.SUCCESS, Isolation.NAMESPACE, "local", result=str(len(self.ran)))


@pytest.fixture
def sandbox():
    return Sandbox()


@pytest.fixture
def registry():
    return Registry(
        TOOL, replace(TOOL, id="tool-2", idempotent=True), RegisteredTool("tool-3", "x", ToolType.LETTA_CORE)
    )


@pytest.fixture
def store():
    return FakeExecutionStore()


@pytest.fixture
def executions(registry, store, sandbox):
    return Executions(registry, store, {ToolType.CUSTOM: sandbox}, MOST)


def call(**values):
    return Execution(**{"arguments": '{"a": 1}', "tool_id": "tool-1", **values})


async def test_without_a_key_each_call_runs(executions, sandbox):
    await executions.execute(ANN, call())
    await executions.execute(ANN, call())

    assert len(sandbox.ran) == 2


async def test_limits_are_those_of_the_deployment(executions, sandbox):
    await executions.execute(ANN, call(limits=Limits(timeout_seconds=999.0, memory_bytes=0)))

    limits = sandbox.ran[0].execution.limits
    assert (limits.timeout_seconds, limits.memory_bytes) == (9.0, MOST.memory_bytes)


async def test_a_repeated_key_gets_the_same_answer(executions, sandbox):
    first = await executions.execute(ANN, call(idempotency_key="k"))
    second = await executions.execute(ANN, call(idempotency_key="k", arguments='{ "a":1 }'))

    assert (first.repeated, second.repeated) == (False, True)
    assert second.result == first.result
    assert len(sandbox.ran) == 1


async def test_calls_at_once_share_one_run(executions, sandbox):
    sandbox.gate.clear()
    tasks = [asyncio.create_task(executions.execute(ANN, call(idempotency_key="k"))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(IdempotencyConflict):
        await executions.execute(ANN, call(idempotency_key="k", arguments="{}"))
    sandbox.gate.set()

    assert {outcome.result.result for outcome in await asyncio.gather(*tasks)} == {"1"}


@pytest.mark.parametrize(
    "other", [{"arguments": "{}"}, {"tool_id": "tool-2"}, {"source": ToolSource(source_code="def f(): ...")}]
)
async def test_a_key_of_another_call_is_refused(executions, other):
    await executions.execute(ANN, call(idempotency_key="k"))

    with pytest.raises(IdempotencyConflict):
        await executions.execute(ANN, call(idempotency_key="k", **other))


async def test_a_lost_call_is_not_run_again_unless_the_tool_allows_it(executions, store, sandbox):
    for tool_id, key in (("tool-1", "k1"), ("tool-2", "k2")):
        fingerprint = call(tool_id=tool_id).fingerprint()
        await store.begin(ANN, Intent(key, fingerprint, tool_id, "", 0.0, again=False))

    lost = await executions.execute(ANN, call(idempotency_key="k1"))
    again = await executions.execute(ANN, call(tool_id="tool-2", idempotency_key="k2"))

    assert (lost.unknown, again.unknown, len(sandbox.ran)) == (True, False, 1)
    assert "not known" in lost.result.failure.message


async def test_a_call_that_runs_elsewhere_is_awaited(executions, store, sandbox):
    fingerprint = call().fingerprint()
    await store.begin(ANN, Intent("k", fingerprint, "tool-1", "", 60.0, again=False))
    task = asyncio.create_task(executions.execute(ANN, call(idempotency_key="k")))
    await asyncio.sleep(0.02)
    assert not task.done()
    store.finish(ANN, "k", write_outcome(Outcome(Result(CallEnding.SUCCESS, Isolation.VM, "e2b", result='"there"'))))

    assert (await task).result.result == '"there"'
    assert sandbox.ran == []


class LapsingStore(FakeExecutionStore):
    """Leases are over as soon as they began; `renew` alone gives one that lasts."""

    def __init__(self):
        super().__init__()
        self.asked_again = asyncio.Event()

    async def begin(self, actor, intent):
        if self._calls:
            self.asked_again.set()
        return await super().begin(actor, replace(intent, lease_seconds=0.0))


async def test_a_call_that_waits_for_a_slot_beyond_its_lease_is_not_lost(registry, sandbox):
    store, elsewhere = LapsingStore(), Sandbox()
    here = Executions(registry, store, {ToolType.CUSTOM: sandbox}, MOST)
    there = Executions(registry, store, {ToolType.CUSTOM: elsewhere}, MOST)
    asked = call(tool_id="tool-2", idempotency_key="k")
    sandbox.gate.clear()
    first = asyncio.create_task(here.execute(ANN, asked))
    await sandbox.asked.wait()
    await here.renew()
    second = asyncio.create_task(there.execute(ANN, asked))
    await store.asked_again.wait()
    sandbox.gate.set()

    outcomes = [await first, await second]
    assert [(each.result.result, each.unknown) for each in outcomes] == [("1", False)] * 2
    assert (len(sandbox.ran), elsewhere.ran) == (1, [])


async def test_calls_that_another_replica_runs_are_not_renewed(registry, sandbox):
    store = LapsingStore()
    executions = Executions(registry, store, {ToolType.CUSTOM: sandbox}, MOST)
    await store.begin(ANN, Intent("k", call().fingerprint(), "tool-1", "", 0.0, again=False))
    await executions.execute(ANN, call(idempotency_key="other"))
    await executions.renew()

    assert (await executions.execute(ANN, call(idempotency_key="k"))).unknown


async def test_a_call_that_was_not_begun_may_be_tried_again(executions, sandbox):
    sandbox.failure = IsolationUnavailable("no")
    with pytest.raises(IsolationUnavailable):
        await executions.execute(ANN, call(idempotency_key="k"))
    sandbox.failure = None

    assert (await executions.execute(ANN, call(idempotency_key="k"))).result.result == "1"


async def test_a_call_survives_its_caller(executions, sandbox):
    sandbox.gate.clear()
    task = asyncio.create_task(executions.execute(ANN, call(idempotency_key="k")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    sandbox.gate.set()

    outcome = await executions.execute(ANN, call(idempotency_key="k"))

    assert (outcome.result.result, outcome.repeated, len(sandbox.ran)) == ("1", True, 1)


async def test_a_known_version_is_not_looked_up_again(executions, registry):
    for _ in range(3):
        await executions.execute(ANN, call(tool_version=3))
    assert registry.lookups == 1
    registry.tools["tool-1"] = replace(TOOL, version=4)

    await executions.execute(ANN, call(tool_version=4))
    await executions.execute(ANN, call(tool_version=3))
    assert registry.lookups == 2
    await executions.execute(ANN, call())
    assert registry.lookups == 3


async def test_tools_of_the_agent_loop_are_refused(executions):
    with pytest.raises(InvalidArgument, match="agent loop"):
        await executions.execute(ANN, call(tool_id="tool-3"))


async def test_closing_ends_what_runs(executions, sandbox):
    sandbox.gate.clear()
    task = asyncio.create_task(executions.execute(ANN, call(idempotency_key="k")))
    await asyncio.sleep(0)
    await executions.close()

    with pytest.raises(asyncio.CancelledError):
        await task


def test_outcomes_survive_being_written():
    result = Result(
        CallEnding.TOOL_ERROR,
        Isolation.LANDLOCK,
        "local",
        failure=ToolFailure("ValueError", "boom \ud800", "line 2"),
        stdout="ä\x00",
        truncated=True,
        usage=CallUsage(0.5, 0.25, 7),
        changed_blocks={"human": "Ann"},
    )

    assert read_outcome(write_outcome(Outcome(result))).result == result


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Result(CallEnding.SUCCESS, Isolation.VM, "p", result='"plain"'), "plain"),
        (Result(CallEnding.SUCCESS, Isolation.VM, "p", result='{"a":1}'), '{"a":1}'),
        (Result(CallEnding.SUCCESS, Isolation.VM, "p", result=""), "null"),
        (Result(CallEnding.TIMEOUT, Isolation.VM, "p"), "Error executing function f: TIMEOUT"),
        (
            Result(CallEnding.TOOL_ERROR, Isolation.VM, "p", failure=ToolFailure("KeyError", "'x'")),
            "Error executing function f: KeyError: 'x'",
        ),
    ],
)
def test_what_the_model_reads(result, text):
    assert return_text(Outcome(result), "f") == text
