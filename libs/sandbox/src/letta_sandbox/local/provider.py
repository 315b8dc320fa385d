"""The local provider: picks the strongest tier that holds here, keeps its fork servers, runs calls."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from letta_common.errors import IsolationUnavailable
from letta_common.fair_slots import FairSlots, Shares
from letta_sandbox.cage import plan
from letta_sandbox.calls import (
    CallEnding,
    CallUsage,
    Env,
    EnvSpec,
    Isolation,
    IsolationReport,
    Language,
    Limits,
    Result,
    SandboxCall,
    ToolFailure,
)
from letta_sandbox.egress import Egress, EgressProxy
from letta_sandbox.local import frames, hosts, nodes, selftests, verdicts
from letta_sandbox.local.fleets import Fleet, Needs
from letta_sandbox.local.frames import BadRequest, FrameOutcome
from letta_sandbox.local.hosts import OwnPackages
from letta_sandbox.local.installer import Installer, PackageSource
from letta_sandbox.local.memory_watch import MemoryShares, MemoryWatch
from letta_sandbox.local.nodes import NodeUnavailable
from letta_sandbox.local.servers import Ending, ForkServer, ServerFailed

_Made = TypeVar("_Made")

NAME = "local"
_TIERS = {
    Isolation.NAMESPACE: plan.NAMESPACE,
    Isolation.LANDLOCK: plan.LANDLOCK,
    Isolation.NONE: plan.NONE,
}
_SMALL = 64 << 10
_FULL = Env(key="full")
# Sources with these words want what the small server has not loaded and each of its forks would import anew.
_FULL_WORDS = ("pydantic", "async")
_TASKS_FRESH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How this host may run calls. `tiers` are tried in order; NONE counts only with `allow_unsandboxed`.

    Packages are installed into `package_directory`, which must not lie under /tmp; none when it is empty.
    TypeScript tools run with `node`, by default the first Node of the search path. Without `egress` none has a network.
    Servers of packages and of hosts end when they are unused for `idle_seconds`; about `package_sets` are kept.
    Calls in Python have the `own` packages. `what` they are in messages and metrics.
    """

    min_isolation: Isolation = Isolation.LANDLOCK
    allow_unsandboxed: bool = False
    tiers: tuple[Isolation, ...] = (Isolation.NAMESPACE, Isolation.LANDLOCK)
    limits: Limits = field(default_factory=lambda: Limits(timeout_seconds=180.0, memory_bytes=1 << 30))
    shares: Shares = field(default_factory=lambda: Shares(slots=256, leave_room=True))
    memory: MemoryShares = field(default_factory=MemoryShares)
    prefork: int = 2
    interpreter: str = ""
    package_directory: str = ""
    package_index: str = ""
    package_sets: int = 8
    idle_seconds: float = 600.0
    node: str = ""
    egress: Egress | None = None
    own: OwnPackages = field(default_factory=OwnPackages)
    what: str = "tool calls"


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the probe found, and the fork server it left warm."""

    report: IsolationReport
    server: ForkServer | None


class LocalProvider:
    """Runs calls on this host."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._standing: _Standing | None = None
        self._lock = asyncio.Lock()
        self._slots = FairSlots(options.shares, options.what)
        self._watch = MemoryWatch(options.memory)
        self._tasks = (0.0, 0)
        self._closed = False
        self._fleet = Fleet(self._start_with, options.package_sets, options.idle_seconds)
        self._installer = Installer(PackageSource(options.package_directory, options.package_index))

    async def start(self) -> None:
        """Nothing outlives a process of this host."""

    async def probe(self) -> IsolationReport:
        """Find the strongest tier whose self-test holds."""
        return (await self._stand()).report

    async def prepare(self, spec: EnvSpec) -> Env:
        """Install what a tool requires, once. Raises InvalidArgument, ServiceUnavailable."""
        if not spec.requirements:
            return Env(organization_id=spec.organization_id)
        python = await asyncio.to_thread(hosts.find_interpreter, self._options.interpreter)
        return await self._installer.install(spec, python)

    async def run(self, call: SandboxCall, env: Env) -> Result:
        """Run one call.

        Raises:
            IsolationUnavailable: no tier is strong enough.
            RateLimited: too many calls of the organization wait, or none could begin in time.
        """
        standing = await self._stand()
        isolation = self._require(standing.report, call.min_isolation)
        call = replace(call, limits=call.limits.cut_to(self._options.limits))
        token = secrets.token_hex(frames.TOKEN_LENGTH // 2)
        begun = time.monotonic()
        try:
            request = await _off_loop_if(len(call.arguments) > _SMALL, lambda: frames.build_request(call, token))
            async with self._slots.hold(env.organization_id):
                begun = time.monotonic()
                ending = await self._execute(request, call, env)
            outcome = await _off_loop_if(len(ending.frame) > _SMALL, lambda: verdicts.judge(ending, call.limits, token))
        except BadRequest as error:
            return Result(CallEnding.REFUSED, isolation, NAME, failure=ToolFailure("BadRequest", str(error)))
        except NodeUnavailable as error:
            why = f"TypeScript tools cannot run here: {error}"
            return Result(CallEnding.REFUSED, isolation, NAME, failure=ToolFailure("NodeUnavailable", why))
        except ServerFailed as error:
            return Result(CallEnding.CRASHED, isolation, NAME, failure=ToolFailure("SandboxDied", str(error)))
        return _result(isolation, outcome, ending, time.monotonic() - begun)

    @property
    def warm_servers(self) -> int:
        """How many fork servers there are besides the first."""
        return self._fleet.count

    async def close(self) -> None:
        """End every call and process."""
        self._closed = True
        await self._watch.close()
        await self._fleet.close()
        async with self._lock:
            if self._standing is not None and self._standing.server is not None:
                await self._standing.server.close()
            self._standing = None

    async def _execute(self, request: bytes, call: SandboxCall, env: Env) -> Ending:
        server = await self._server(env, call)
        limits = call.limits
        tasks = await self._tasks_of_user(server)
        # Twice: the frame may escape what the result has as it is; `verdicts` holds the result itself to its limit.
        frame_limit = 2 * limits.result_bytes + frames.OVERHEAD
        with self._watch.over(env.organization_id, limits.memory_bytes) as watched:
            return await server.run(request, limits, frame_limit=frame_limit, tasks=tasks, begun=watched.begun)

    async def _server(self, env: Env, call: SandboxCall) -> ForkServer:
        """Return the server that has loaded what the call will use. Raises ServerFailed."""
        if call.language is Language.JAVASCRIPT:
            return await self._fleet.get(Needs(nodes.ENVIRONMENT))
        if call.destinations and self._options.egress is not None:
            base = env if env.path else replace(_FULL, organization_id=env.organization_id)
            return await self._fleet.get(Needs(base, call.destinations))
        if env.path:
            return await self._fleet.get(Needs(env))
        if any(word in call.source_code for word in _FULL_WORDS) or any(
            module in _FULL_WORDS for _, module, _ in call.borrowed
        ):
            return await self._fleet.get(Needs(_FULL))
        standing = await self._stand()
        if standing.server is None:
            raise ServerFailed("no fork server")
        return standing.server

    async def _tasks_of_user(self, server: ForkServer) -> int:
        """Return how many tasks of the service's user a call must leave room for, if it shares the id."""
        if not hosts.shares_ids(server.plan):
            return 0
        seen, count = self._tasks
        now = time.monotonic()
        if now - seen > _TASKS_FRESH_SECONDS:
            count = await asyncio.to_thread(hosts.count_tasks, os.getuid())
            self._tasks = (now, count)
        # The count is up to ten seconds old, and calls of other servers begin meanwhile.
        return count + server.busy * 2 + 64

    def _require(self, report: IsolationReport, least: Isolation) -> Isolation:
        if report.isolation is None or report.isolation < least:
            missing = "; ".join(report.missing) or f"this host offers {report.isolation!r}"
            raise IsolationUnavailable(f"tools cannot be isolated strongly enough here: {missing}", missing=missing)
        return report.isolation

    async def _stand(self) -> _Standing:
        """Return what the probe found; start again a fork server that has died."""
        standing = self._standing
        if standing is not None and (standing.server is None or not standing.server.dead):
            return standing
        async with self._lock:
            if self._closed:
                raise IsolationUnavailable("the provider is closed", missing="a running provider")
            if self._standing is None or (self._standing.server is not None and self._standing.server.dead):
                if self._standing is not None and self._standing.server is not None:
                    await self._standing.server.close()
                self._standing = await self._probe()
            return self._standing

    async def _probe(self) -> _Standing:
        missing: list[str] = []
        tiers = [tier for tier in self._options.tiers if tier >= max(self._options.min_isolation, Isolation.LANDLOCK)]
        for tier in [*tiers, *([Isolation.NONE] if self._options.allow_unsandboxed else [])]:
            try:
                server = await self._start(tier, Needs(Env()), 0)
            except (ServerFailed, OSError, NotImplementedError) as error:
                missing.append(f"{tier.name}: {error}")
                continue
            weakness = await self._weakness(server, selftests.make_call()) if tier is not Isolation.NONE else ""
            if not weakness:
                return _Standing(IsolationReport(NAME, tier, tuple(missing)), server)
            missing.append(f"{tier.name}: {weakness}")
            await server.close()
        return _Standing(IsolationReport(NAME, None, tuple(missing)), None)

    async def _start_with(self, needs: Needs, place: int) -> ForkServer:
        standing = await self._stand()
        if standing.report.isolation is None:
            raise ServerFailed("no fork server")
        tier = standing.report.isolation
        try:
            server = await self._start(tier, needs, place)
        except OSError as error:
            raise ServerFailed(str(error)) from error
        if needs.env == nodes.ENVIRONMENT and tier is not Isolation.NONE:
            weakness = await self._weakness(server, selftests.make_node_call())
            if weakness:
                await server.close()
                raise NodeUnavailable(f"it is not isolated well enough: {weakness}")
        return server

    async def _start(self, tier: Isolation, needs: Needs, place: int) -> ForkServer:
        options = self._options
        python = await asyncio.to_thread(hosts.find_interpreter, options.interpreter)
        sizes = {"calls": options.shares.slots, "prefork": options.prefork, "place": place}
        proxy = None
        if needs.env == nodes.ENVIRONMENT:
            node = await asyncio.to_thread(nodes.find_node, options.node)
            made = nodes.make_plan(_TIERS[tier], node, python, **sizes)
        else:
            made = hosts.make_plan(_TIERS[tier], python, env=needs.env, **sizes)
            made = hosts.with_own(made, options.own, python)
            made = hosts.with_stage(made, options.limits)
        if needs.destinations and options.egress is not None:
            made = hosts.with_network(made)
            proxy = EgressProxy(options.egress, needs.destinations)
        return await ForkServer.start(made, python.path, proxy)

    async def _weakness(self, server: ForkServer, call: SandboxCall) -> str:
        token = secrets.token_hex(frames.TOKEN_LENGTH // 2)
        request = frames.build_request(call, token)
        tasks = await self._tasks_of_user(server)
        try:
            ending = await server.run(request, call.limits, frame_limit=_SMALL, tasks=tasks)
        except ServerFailed as error:
            return str(error)
        return selftests.weakness(_result(Isolation.NONE, verdicts.judge(ending, call.limits, token), ending, 0.0))


async def _off_loop_if(large: bool, work: Callable[[], _Made]) -> _Made:
    """Do small work at once and large work in a thread."""
    return await asyncio.to_thread(work) if large else work()


def _result(isolation: Isolation, outcome: FrameOutcome, ending: Ending, wall_seconds: float) -> Result:
    return Result(
        status=outcome.status,
        isolation=isolation,
        provider=NAME,
        result=outcome.result,
        failure=outcome.failure,
        stdout=ending.stdout.decode(errors="replace"),
        stderr=ending.stderr.decode(errors="replace"),
        truncated=ending.output_exceeded,
        usage=CallUsage(
            wall_seconds,
            ending.cpu_seconds or outcome.cpu_seconds,
            ending.peak_memory_bytes or outcome.peak_memory_bytes,
        ),
        changed_blocks=outcome.changed_blocks,
    )
