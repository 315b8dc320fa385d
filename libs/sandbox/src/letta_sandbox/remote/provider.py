"""The remote provider: a call becomes a job, a machine runs it, the answer is judged here."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
import tarfile
import time
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from letta_common.errors import InvalidArgument, IsolationUnavailable
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
from letta_sandbox.inside import agent_state, fitting, harness, scalars
from letta_sandbox.local import frames, hosts, verdicts
from letta_sandbox.local.frames import BadRequest
from letta_sandbox.local.installer import Installer, PackageSource
from letta_sandbox.local.servers import Ending
from letta_sandbox.remote import runner
from letta_sandbox.remote.machines import (
    Job,
    MachineFailed,
    MachineLost,
    MachineOutOfMemory,
    Machines,
    TooMuchOutput,
)
from letta_sandbox.remote.owners import MachineOwner
from letta_sandbox.remote.pool import MachinePool, PoolOptions, Use

_MODULES = (agent_state, scalars, fitting, harness)
_MOST_PACKAGES = 256 << 20
_KEPT_PACKAGES = 4
_KEPT_VERSIONS = 256
_HARMLESS = {CallEnding.SUCCESS, CallEnding.TOOL_ERROR, CallEnding.BAD_RESULT}
_PROBE = """
def probe(addresses):
    import socket, sys
    reached = []
    for host, port in addresses:
        try:
            socket.create_connection((host, port), 2).close()
            reached.append(f"{host}:{port}")
        except OSError:
            pass
    return {"version": list(sys.version_info[:2]), "reached": reached}
"""


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How calls run elsewhere. Packages are put together on this host and travel to the machine.

    `owner_directory` is where processes of one host leave a sign of life, so that each ends the machines of dead ones.
    """

    min_isolation: Isolation = Isolation.LANDLOCK
    limits: Limits = field(default_factory=lambda: Limits(timeout_seconds=180.0, memory_bytes=1 << 30))
    pool: PoolOptions = field(default_factory=PoolOptions)
    interpreter: str = ""
    package_directory: str = ""
    package_index: str = ""
    owner_directory: str = ""


class RemoteProvider:
    """Runs calls on machines elsewhere. Where none is to be had calls fail; they never run elsewhere instead."""

    def __init__(self, machines: Machines, options: RemoteOptions) -> None:
        self._machines = machines
        self._options = options
        owner = MachineOwner(Path(options.owner_directory) if options.owner_directory else None)
        self._pool = MachinePool(machines, owner, options.pool)
        self._installer = Installer(PackageSource(options.package_directory, options.package_index))
        self._packed: LRUCache[str, bytes] = LRUCache(_KEPT_PACKAGES)
        self._report: IsolationReport | None = None
        self._versions: LRUCache[str, tuple[int, int]] = LRUCache(_KEPT_VERSIONS)
        self._probing = asyncio.Lock()

    async def start(self) -> None:
        """End the machines that earlier processes left, from now on."""
        self._pool.begin()

    async def probe(self) -> IsolationReport:
        """Run a real call on a machine, which must not reach what is closed to it; what works is remembered."""
        async with self._probing:
            if self._report is None:
                report = await self._probe()
                if report.isolation is None:
                    return report
                self._report = report
            return self._report

    async def prepare(self, spec: EnvSpec) -> Env:
        """Put together what a tool requires. Raises InvalidArgument, ServiceUnavailable, IsolationUnavailable."""
        if not spec.requirements:
            return Env(organization_id=spec.organization_id)
        python = await asyncio.to_thread(hosts.find_interpreter, self._options.interpreter)
        version = await self._version_of(spec.template)
        if python.version != version:
            ours, theirs = (".".join(map(str, each)) for each in (python.version, version))
            raise InvalidArgument(f"packages are for Python {ours} here, but {self._machines.name} runs {theirs}")
        return await self._installer.install(spec, python)

    async def run(self, call: SandboxCall, env: Env) -> Result:
        """Run one call. Raises IsolationUnavailable when no machine is to be had; cancelling ends the machine."""
        if call.language is not Language.PYTHON:
            return self._failed(
                CallEnding.REFUSED, "NodeUnavailable", f"TypeScript tools do not run on {self._machines.name}"
            )
        self._require(await self._trusted(), call.min_isolation)
        return await self._run(call, env)

    async def close(self) -> None:
        """End the machines that wait for calls, and let go of the connection."""
        await self._pool.close()

    async def _trusted(self) -> IsolationReport:
        """Return what machines are; those that might have a way out are not believed before a real call found none."""
        if self._report is not None:
            return self._report
        try:
            doubtful = await self._machines.closed_to()
        except MachineFailed as error:
            return IsolationReport(self._machines.name, None, (f"{self._machines.name}: {error}",))
        if doubtful:
            return await self.probe()
        return IsolationReport(self._machines.name, self._machines.isolation)

    async def _run(self, call: SandboxCall, env: Env) -> Result:
        call = replace(call, limits=call.limits.cut_to(self._options.limits))
        token = secrets.token_hex(frames.TOKEN_LENGTH // 2)
        try:
            request = await asyncio.to_thread(frames.build_request, call, token)
            packages = await self._packages(env)
        except BadRequest as error:
            return self._failed(CallEnding.REFUSED, "BadRequest", str(error))
        use = Use(env.organization_id, env.key, len(packages), call.limits, call.template)
        begun = time.monotonic()
        try:
            async with self._pool.lease(use) as lease:
                written = await lease.run(lambda fresh: _job(request, env.key, packages if fresh else b"", call.limits))
                ending, clean = await asyncio.to_thread(_ending, written)
                if ending is None:
                    return self._failed(CallEnding.CRASHED, "NoAnswer", "the machine gave no answer that can be read")
                result = await asyncio.to_thread(self._judged, ending, call.limits, token)
                lease.keep = clean and result.status in _HARMLESS
        except MachineOutOfMemory:
            return self._failed(CallEnding.MEMORY, "Killed", "the machine ran out of memory")
        except TooMuchOutput as error:
            return self._failed(CallEnding.OUTPUT_LIMIT, "OutputLimit", str(error))
        except MachineLost as error:
            why = f"the machine was lost during the call, which may have had effects: {error}"
            return self._failed(CallEnding.CRASHED, "MachineLost", why)
        except MachineFailed as error:
            missing = f"{self._machines.name}: {error}"
            raise IsolationUnavailable(f"no machine for the call: {missing}", missing=missing) from error
        return replace(result, usage=replace(result.usage, wall_seconds=time.monotonic() - begun))

    def _judged(self, ending: Ending, limits: Limits, token: str) -> Result:
        outcome = verdicts.judge(ending, limits, token)
        return Result(
            status=outcome.status,
            isolation=self._machines.isolation,
            provider=self._machines.name,
            result=outcome.result,
            failure=outcome.failure,
            stdout=ending.stdout.decode(errors="replace"),
            stderr=ending.stderr.decode(errors="replace"),
            truncated=ending.output_exceeded,
            usage=CallUsage(0.0, ending.cpu_seconds, ending.peak_memory_bytes),
            changed_blocks=outcome.changed_blocks,
        )

    async def _version_of(self, template: str) -> tuple[int, int]:
        """Return the Python of the machines that are made of a template. Raises IsolationUnavailable."""
        version = self._versions.get(template)
        if version is None:
            # Each template is looked at by itself: one that does not start holds up nobody else.
            is_first = not template and self._report is None
            self._require(await (self.probe() if is_first else self._probe(template)), Isolation.NONE)
            version = self._versions[template]
        return version

    async def _probe(self, template: str = "") -> IsolationReport:
        name = self._machines.name
        try:
            arguments = json.dumps({"addresses": list(await self._machines.closed_to())})
            result = await self._run(
                SandboxCall(_PROBE, "probe", arguments, limits=Limits(timeout_seconds=30.0), template=template), Env()
            )
        except MachineFailed as error:
            return IsolationReport(name, None, (f"{name}: {error}",))
        except IsolationUnavailable as error:
            return IsolationReport(name, None, (error.message,))
        if result.status is not CallEnding.SUCCESS:
            why = result.failure.message if result.failure else result.status.value
            return IsolationReport(name, None, (f"{name}: a call does not work: {why}",))
        said = json.loads(result.result)
        if said["reached"]:
            reached = ", ".join(said["reached"])
            return IsolationReport(name, None, (f"{name}: a call reaches {reached}; deny machines the network",))
        self._versions[template] = (int(said["version"][0]), int(said["version"][1]))
        return IsolationReport(name, self._machines.isolation)

    def _require(self, report: IsolationReport, least: Isolation) -> None:
        least = max(least, self._options.min_isolation)
        if report.isolation is None or report.isolation < least:
            missing = "; ".join(report.missing) or f"{report.provider} is weaker than {least.name}"
            raise IsolationUnavailable(f"tools cannot be isolated strongly enough: {missing}", missing=missing)

    async def _packages(self, env: Env) -> bytes:
        """Return the packages of an environment as they travel."""
        if not env.path:
            return b""
        packed = self._packed.get(env.key)
        if packed is None:
            packed = self._packed[env.key] = await asyncio.to_thread(_pack, Path(env.path))
        return packed

    def _failed(self, status: CallEnding, kind: str, message: str) -> Result:
        return Result(status, self._machines.isolation, self._machines.name, failure=ToolFailure(kind, message))


@cache
def _program() -> bytes:
    """Return the runner with the sources it needs, as one text."""
    sources = [(module.__name__, Path(str(module.__file__)).read_text()) for module in _MODULES]
    return f"{Path(str(runner.__file__)).read_text()}\n\nmain({sources!r})\n".encode()


def _job(request: bytes, packages: str, package_bytes: bytes, limits: Limits) -> Job:
    """Return the job of a call. The program comes on standard input too, since command lines are short."""
    frame_bytes = 2 * limits.result_bytes + frames.OVERHEAD
    head = {
        "request_bytes": len(request),
        "packages": packages,
        "package_bytes": len(package_bytes),
        "frame_bytes": frame_bytes,
        "timeout_seconds": limits.timeout_seconds,
        "memory_bytes": limits.memory_bytes,
        "scratch_bytes": limits.scratch_bytes,
        "output_bytes": limits.output_bytes,
        "open_files": limits.open_files,
    }
    program = _program()
    boot = f"import sys; exec(compile(sys.stdin.buffer.read({len(program)}), 'runner', 'exec'))"
    data = b"".join((program, json.dumps(head).encode(), b"\n", request, package_bytes))
    most = 2 * (frame_bytes + limits.output_bytes) + frames.OVERHEAD
    return Job(("python3", "-I", "-B", "-c", boot), data, limits, most)


def _pack(path: Path) -> bytes:
    """Return a directory as a tar archive. Raises BadRequest when it is too large to travel."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.add(path, arcname=".")
    if made.tell() > _MOST_PACKAGES:
        raise BadRequest(f"the packages have {made.tell()} bytes, the limit is {_MOST_PACKAGES}")
    return made.getvalue()


def _ending(written: bytes) -> tuple[Ending | None, bool]:
    """Read what a machine says of a call, and whether nothing is left of it. None when it cannot be read."""
    try:
        said: dict[str, Any] = json.loads(written)
        frame, stdout, stderr = (base64.b64decode(said[name], validate=True) for name in ("frame", "stdout", "stderr"))
        ending = Ending(
            status=int(said["status"]) & 0xFFFF,
            timed_out=said["timed_out"] is True,
            frame_exceeded=said["frame_exceeded"] is True,
            output_exceeded=said["output_exceeded"] is True,
            cpu_seconds=max(0.0, float(said["cpu_seconds"])),
            peak_memory_bytes=max(0, int(said["peak_memory_bytes"])),
            frame=frame,
            stdout=stdout,
            stderr=stderr,
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None, False
    return ending, said.get("clean") is True
