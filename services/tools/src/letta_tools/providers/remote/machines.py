"""What remote providers do alike: a call becomes a job, a machine of its own runs it, the answer is judged here."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
import tarfile
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from letta_common.errors import InvalidArgument, IsolationUnavailable
from letta_tools.domain.execution import (
    Call,
    Env,
    EnvSpec,
    Isolation,
    IsolationReport,
    Limits,
    Result,
    Status,
    ToolFailure,
    Usage,
)
from letta_tools.providers.local import agent_state, frames, harness, hosts, verdicts
from letta_tools.providers.local.frames import BadRequest
from letta_tools.providers.local.requirements import Installer, Source
from letta_tools.providers.local.servers import Ending
from letta_tools.providers.remote import runner

_MODULES = (agent_state, harness)
_MOST_PACKAGES = 256 << 20
_KEPT_PACKAGES = 4
_PROBE = "def probe():\n    import sys\n    return list(sys.version_info[:2])\n"


class MachineFailed(Exception):
    """A machine could not be had, or was lost; the message says why."""


class MachineOutOfMemory(Exception):
    """The machine was ended because its memory ran out."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a machine does: give `data` to the standard input of `program` (Python), return what it writes."""

    program: str
    data: bytes
    limits: Limits
    most_bytes: int
    package_bytes: int = 0


class Machines(Protocol):
    """Where machines come from."""

    name: str
    isolation: Isolation

    async def run(self, job: Job) -> bytes:
        """Run a job on a machine of its own, which is gone afterwards. Raises MachineFailed, MachineOutOfMemory."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How calls run elsewhere. Packages are put together on this host and travel with the call."""

    min_isolation: Isolation = Isolation.LANDLOCK
    limits: Limits = field(default_factory=lambda: Limits(timeout_seconds=180.0, memory_bytes=1 << 30))
    concurrent_calls: int = 64
    interpreter: str = ""
    package_directory: str = ""
    package_index: str = ""


class RemoteProvider:
    """Runs each call on a machine of its own. Where none is to be had calls fail; they never run elsewhere instead."""

    def __init__(self, machines: Machines, options: RemoteOptions) -> None:
        self._machines = machines
        self._options = options
        self._places = asyncio.Semaphore(options.concurrent_calls)
        self._installer = Installer(Source(options.package_directory, options.package_index))
        self._packed: OrderedDict[str, bytes] = OrderedDict()
        self._report: IsolationReport | None = None
        self._version: tuple[int, int] | None = None

    async def probe(self) -> IsolationReport:
        """Run a real call on a machine; what works is remembered."""
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
        self._require(await self.probe(), Isolation.NONE)
        if python.version != self._version:
            ours, theirs = (".".join(map(str, version or ())) for version in (python.version, self._version))
            raise InvalidArgument(f"packages are for Python {ours} here, but {self._machines.name} runs {theirs}")
        return await self._installer.install(spec, python)

    async def run(self, call: Call, env: Env) -> Result:
        """Run one call. Raises IsolationUnavailable."""
        self._require(IsolationReport(self._machines.name, self._machines.isolation), call.min_isolation)
        call = replace(call, limits=call.limits.cut_to(self._options.limits))
        token = secrets.token_hex(frames.TOKEN_LENGTH // 2)
        try:
            request = await asyncio.to_thread(frames.build_request, call, token)
            packages = await self._packages(env)
        except BadRequest as error:
            return self._failed(Status.REFUSED, "BadRequest", str(error))
        async with self._places:
            begun = time.monotonic()
            try:
                written = await self._machines.run(_job(request, packages, call.limits))
            except MachineOutOfMemory:
                return self._failed(Status.MEMORY, "Killed", "the machine ran out of memory")
            except MachineFailed as error:
                missing = f"{self._machines.name}: {error}"
                raise IsolationUnavailable(f"no machine for the call: {missing}", missing=missing) from error
        ending = await asyncio.to_thread(_ending, written)
        if ending is None:
            return self._failed(Status.CRASHED, "NoAnswer", "the machine gave no answer that can be read")
        outcome = await asyncio.to_thread(verdicts.judge, ending, call.limits, token)
        return Result(
            status=outcome.status,
            isolation=self._machines.isolation,
            provider=self._machines.name,
            result=outcome.result,
            failure=outcome.failure,
            stdout=ending.stdout.decode(errors="replace"),
            stderr=ending.stderr.decode(errors="replace"),
            truncated=ending.output_exceeded,
            usage=Usage(time.monotonic() - begun, ending.cpu_seconds, ending.peak_memory_bytes),
            agent_state_changes=outcome.changes,
        )

    async def close(self) -> None:
        """Let go of the connection; machines end with their calls."""
        await self._machines.close()

    async def _probe(self) -> IsolationReport:
        name = self._machines.name
        try:
            result = await self.run(Call(_PROBE, "probe", limits=Limits(timeout_seconds=30.0)), Env())
        except IsolationUnavailable as error:
            return IsolationReport(name, None, (error.message,))
        if result.status is not Status.SUCCESS:
            why = result.failure.message if result.failure else result.status.value
            return IsolationReport(name, None, (f"{name}: a call does not work: {why}",))
        major, minor = json.loads(result.result)
        self._version = (int(major), int(minor))
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
        if env.key not in self._packed:
            self._packed[env.key] = await asyncio.to_thread(_pack, Path(env.path))
        self._packed.move_to_end(env.key)
        while len(self._packed) > _KEPT_PACKAGES:
            self._packed.popitem(last=False)
        return self._packed[env.key]

    def _failed(self, status: Status, kind: str, message: str) -> Result:
        return Result(status, self._machines.isolation, self._machines.name, failure=ToolFailure(kind, message))


@cache
def _program() -> str:
    """Return the runner with the sources it needs, as one text for `python -c`."""
    sources = [(module.__name__, Path(str(module.__file__)).read_text()) for module in _MODULES]
    return f"{Path(str(runner.__file__)).read_text()}\n\nmain({sources!r})\n"


def _job(request: bytes, packages: bytes, limits: Limits) -> Job:
    frame_bytes = 2 * limits.result_bytes + frames.OVERHEAD
    head = {
        "request_bytes": len(request),
        "package_bytes": len(packages),
        "frame_bytes": frame_bytes,
        "timeout_seconds": limits.timeout_seconds,
        "memory_bytes": limits.memory_bytes,
        "scratch_bytes": limits.scratch_bytes,
        "output_bytes": limits.output_bytes,
        "open_files": limits.open_files,
    }
    data = json.dumps(head).encode() + b"\n" + request + packages
    most = 2 * (frame_bytes + limits.output_bytes) + frames.OVERHEAD
    return Job(_program(), data, limits, most, len(packages))


def _pack(path: Path) -> bytes:
    """Return a directory as a tar archive. Raises BadRequest when it is too large to travel."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.add(path, arcname=".")
    if made.tell() > _MOST_PACKAGES:
        raise BadRequest(f"the packages have {made.tell()} bytes, the limit is {_MOST_PACKAGES}")
    return made.getvalue()


def _ending(written: bytes) -> Ending | None:
    """Read what a machine says of a call. It is not trusted; None when it cannot be read."""
    try:
        said: dict[str, Any] = json.loads(written)
        frame, stdout, stderr = (base64.b64decode(said[name], validate=True) for name in ("frame", "stdout", "stderr"))
        return Ending(
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
        return None
