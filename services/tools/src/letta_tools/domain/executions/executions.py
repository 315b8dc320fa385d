"""Executions of tools: who runs what, once for each idempotency key."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from cachetools import LRUCache

from letta.tools.v1.tool_execution_service_pb2 import ToolSource
from letta_common.actor import Actor
from letta_common.errors import AppError, IdempotencyConflict, InvalidArgument
from letta_common.process.periodic import Periodic
from letta_sandbox.calls import CallEnding, Isolation, Limits, Result, ToolFailure
from letta_sandbox.requirements import read_python
from letta_tools.domain.executions.outcomes import Outcome, read_outcome, write_outcome
from letta_tools.domain.registry.records import RegisteredTool, Requirement, ToolSourceType, ToolType, source_type_of

# Most calls end soon; a long one is asked about twice a second.
_POLL_SECONDS = (0.05, 0.1, 0.2, 0.5)
# Renewed several times before its margin is over, a lease lasts while the call waits for a slot or for packages.
_LEASE_MARGIN_SECONDS = 60.0
_RENEW_SECONDS = 20.0
_MAX_CACHED = 4096


@dataclass(frozen=True, slots=True)
class Execution:
    """One call that is asked for: of a tool of the registry, or of bare source."""

    arguments: str
    tool_id: str = ""
    tool_version: int = 0
    source: ToolSource | None = None
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    agent_state: str = ""
    agent_id: str = ""
    limits: Limits = field(default_factory=Limits)
    idempotency_key: str = ""

    def fingerprint(self) -> str:
        """Return what a repeated call must have in common with the first one."""
        source = self.source
        target = (
            self.tool_id if source is None else f"{source.source_type}\x1f{source.function}\x1f{source.source_code}"
        )
        # Separators that are no text keep neighbouring parts from running into each other.
        text = f"{target}\x1e{_canonical(self.arguments)}"
        # JSON may spell halves of characters, which strict UTF-8 refuses.
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Work:
    """A call that is ready to run: the tool and its arguments, an object as text."""

    tool: RegisteredTool
    execution: Execution
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Intent:
    """What is noted before a call runs."""

    key: str
    fingerprint: str
    tool_id: str
    agent_id: str
    lease_seconds: float
    again: bool


@dataclass(frozen=True, slots=True)
class CallLease:
    """How much longer a call that was begun may be taken for running."""

    organization_id: str
    key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the call of a key stands: just begun, running somewhere, done, or begun and lost."""

    begun: bool
    fingerprint: str
    outcome: bytes | None = None
    is_running: bool = False


class ExecutionStore(Protocol):
    """Remembers calls by key. Every call sees only the actor's organization."""

    async def begin(self, actor: Actor, intent: Intent) -> Standing:
        """Note the intent, durably, or say where the earlier call stands. With `again`, a lost call begins anew."""
        ...

    async def renew(self, leases: Sequence[CallLease]) -> None:
        """Have the leases of calls that run begin anew."""
        ...

    def finish(self, actor: Actor, key: str, outcome: bytes) -> None:
        """Keep the outcome; it is durable a moment later."""
        ...

    async def abandon(self, actor: Actor, key: str) -> None:
        """Forget an intent whose call was not begun."""
        ...


class ToolFinder(Protocol):
    """Where tools come from."""

    async def get(self, actor: Actor, tool_id: str) -> RegisteredTool:
        """Return one tool. Raises ToolNotFound."""
        ...


class Executor(Protocol):
    """Carries out calls of some types of tools."""

    async def run(self, actor: Actor, work: Work) -> Result:
        """Run the call to its end; whatever the tool does is a status. Raises IsolationUnavailable."""
        ...


class Executions:
    """Runs calls."""

    def __init__(
        self, tools: ToolFinder, store: ExecutionStore, executors: Mapping[ToolType, Executor], most: Limits
    ) -> None:
        self._tools = tools
        self._store = store
        self._executors = executors
        self._most = most
        self._cached: LRUCache[tuple[str, str], RegisteredTool] = LRUCache(_MAX_CACHED)
        self._running: dict[tuple[str, str], tuple[str, asyncio.Task[Outcome]]] = {}
        self._leases: set[CallLease] = set()
        self._renewals = Periodic("leases of calls", self.renew, _RENEW_SECONDS)

    async def execute(self, actor: Actor, execution: Execution) -> Outcome:
        """Run one call; with a key, once.

        Raises:
            ToolNotFound: the organization has no such tool.
            InvalidArgument: the agent loop carries out this tool itself; a requirement is none.
            IdempotencyConflict: the key was used for another call.
            IsolationUnavailable: the host offers no isolation that is strong enough.
        """
        tool = await self._tool(actor, execution)
        executor = self._executor(tool)
        arguments = _object(execution.arguments)
        if arguments is None:
            return Outcome(refused("the arguments are not a JSON object"))
        execution = replace(execution, limits=execution.limits.cut_to(self._most))
        work = Work(tool, execution, arguments)
        if not execution.idempotency_key:
            return Outcome(await executor.run(actor, work), tool_version=_version(tool))
        return await self._once(actor, executor, work)

    async def start(self) -> None:
        """Begin to renew the leases of calls."""
        self._renewals.start()

    async def renew(self) -> None:
        """Renew the leases of the calls that run here."""
        if self._leases:
            await self._store.renew(list(self._leases))

    async def close(self) -> None:
        """End the calls that run."""
        await self._renewals.stop()
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _once(self, actor: Actor, executor: Executor, work: Work) -> Outcome:
        """Run a call that has a key, or answer with the call that has run. It goes on when its caller goes away."""
        place = (actor.organization_id, work.execution.idempotency_key)
        fingerprint = work.execution.fingerprint()
        # A repeat on this replica waits for the task itself; one on another replica asks the table.
        running = self._running.get(place)
        if running is not None:
            _check_same(fingerprint, running[0], place[1])
            return replace(await asyncio.shield(running[1]), repeated=True)
        task = asyncio.create_task(self._keyed(actor, executor, work, fingerprint))
        self._running[place] = (fingerprint, task)
        task.add_done_callback(lambda _: self._running.pop(place, None))
        return await asyncio.shield(task)

    async def _keyed(self, actor: Actor, executor: Executor, work: Work, fingerprint: str) -> Outcome:
        key = work.execution.idempotency_key
        seconds = work.execution.limits.timeout_seconds + _LEASE_MARGIN_SECONDS
        lease = CallLease(actor.organization_id, key, seconds)
        standing = await self._begin(actor, work, fingerprint, lease)
        if not standing.begun:
            if standing.outcome is None:
                # It may have done what must not be done twice.
                return Outcome(result=_lost(), unknown=True, repeated=True)
            return replace(read_outcome(standing.outcome), repeated=True)
        self._leases.add(lease)
        try:
            outcome = Outcome(await executor.run(actor, work), tool_version=_version(work.tool))
        except AppError:  # nothing has run
            await self._store.abandon(actor, key)
            raise
        finally:
            self._leases.discard(lease)
        self._store.finish(actor, key, write_outcome(outcome))
        return outcome

    async def _begin(self, actor: Actor, work: Work, fingerprint: str, lease: CallLease) -> Standing:
        """Note the intent. While another replica runs the call, wait for it."""
        execution = work.execution
        intent = Intent(
            key=lease.key,
            fingerprint=fingerprint,
            tool_id=work.tool.id,
            agent_id=execution.agent_id,
            lease_seconds=lease.seconds,
            again=work.tool.idempotent,
        )
        polls = iter(_POLL_SECONDS)
        while True:
            standing = await self._store.begin(actor, intent)
            _check_same(fingerprint, standing.fingerprint, intent.key)
            if standing.begun or not standing.is_running:
                return standing
            await asyncio.sleep(next(polls, _POLL_SECONDS[-1]))

    async def _tool(self, actor: Actor, execution: Execution) -> RegisteredTool:
        if execution.source is not None:
            return _unregistered(execution.source)
        place = (actor.organization_id, execution.tool_id)
        tool = self._cached.get(place)
        # A caller that has seen a newer version knows that the one at hand is stale.
        if tool is None or not execution.tool_version or tool.version < execution.tool_version:
            tool = self._cached[place] = await self._tools.get(actor, execution.tool_id)
        return tool

    def _executor(self, tool: RegisteredTool) -> Executor:
        executor = self._executors.get(tool.tool_type)
        if executor is None:
            raise InvalidArgument(f"`{tool.name}` ({tool.tool_type}) is carried out by the agent loop", tool_id=tool.id)
        return executor


def _version(tool: RegisteredTool) -> int:
    """Return the version that runs; bare source has none."""
    return tool.version if tool.id else 0


def refused(why: str, kind: str = "BadRequest") -> Result:
    """Return the result of a call that was not begun."""
    return Result(CallEnding.REFUSED, Isolation.NONE, "", failure=ToolFailure(kind, why))


def _lost() -> Result:
    return refused("the call was begun earlier and its outcome is not known; it was not run again", "OutcomeUnknown")


def _check_same(wanted: str, found: str, key: str) -> None:
    if wanted != found:
        raise IdempotencyConflict(f"the key {key} was used for another call", idempotency_key=key)


def _unregistered(source: ToolSource) -> RegisteredTool:
    kind = source_type_of(source.source_type)
    for text in source.requirements if kind is not ToolSourceType.TYPESCRIPT else ():
        read_python(text)
    return RegisteredTool(
        id="",
        name=source.function,
        source_type=kind,
        source_code=source.source_code,
        json_schema=_schema_of(source),
        pip_requirements=tuple(Requirement(text) for text in source.requirements),
    )


def _schema_of(source: ToolSource) -> str:
    """Return the schema as the registry would keep it. Raises InvalidArgument."""
    if not source.parameters_schema:
        return ""
    parameters = _object(source.parameters_schema)
    if parameters is None:
        raise InvalidArgument("the schema is not a JSON object", field="source.parameters_schema")
    return json.dumps({"parameters": parameters})


def _object(text: str) -> dict[str, object] | None:
    try:
        # Python's reader takes NaN and Infinity, which JSON does not have.
        value = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _canonical(arguments: str) -> str:
    """Return the arguments with sorted keys, so that spelling makes no difference."""
    value = _object(arguments)
    return arguments if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))
