"""Processes that serve, each started again when it ends unbidden: one for each service, or several that serve all.

They fork from one that has loaded all services (`multiprocessing`'s fork server), so that a start costs
milliseconds in place of seconds and the pages of the modules are there once. This one loads no service, and no gRPC.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from multiprocessing import forkserver

import structlog

from letta_cli.servers.databases import database
from letta_common.process.settings import Settings
from letta_rpc.startup.lifetime import failures_told, termination

SERVICES = ("auth", "tools", "llm_gateway", "memory", "agent", "gateway")
WORKER = "letta_cli.servers.worker"
_ENDED_TOGETHER = (("gateway",), ("agent",), ("memory", "tools", "llm_gateway"), ("auth",))  # callers before called
_CONNECTIONS_OF_WORKER = 80  # pools of five services, and those that listen
# From Linux' <sys/prctl.h>: who dies with its parent, and the name that `ps` shows.
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
# They grow, so that a service that cannot start does not take the machine from the others.
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
# A service that ran so long did not fail at its start, so it is started again at once.
_STEADY_SECONDS = 30.0
_END_SECONDS = 15.0
_log = structlog.get_logger("letta.up")
_libc = ctypes.CDLL(None, use_errno=True)
_forks = multiprocessing.get_context("forkserver")


class ServiceProcess:
    """A process that runs the `main` of a module, kept running until it is asked to end."""

    def __init__(self, name: str, module: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._module = module
        self._environment = environment
        self.ending = asyncio.Event()
        self._process: multiprocessing.process.BaseProcess | None = None

    async def run(self) -> None:
        """Start it, and start it again with growing pauses when it ends."""
        failures = 0
        while not self.ending.is_set():
            begun = asyncio.get_running_loop().time()
            status = await self._run_once()
            if self.ending.is_set():
                return
            steady = asyncio.get_running_loop().time() - begun > _STEADY_SECONDS
            failures = 0 if steady else failures + 1
            pause = _PAUSES[min(failures, len(_PAUSES)) - 1] if failures else 0.0
            _log.warning("service ended", service=self.name, status=status, again_in_seconds=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), pause)

    async def _run_once(self) -> int | None:
        """Run it until it ends; return its exit code, minus the signal that ended it, None without a start."""
        process = _forks.Process(target=serve, args=(self.name, self._module, self._environment))
        try:
            forkserver.ensure_running()  # here and not in the thread, with which the kernel would end it
            await asyncio.to_thread(process.start)  # the first one waits until the modules are loaded
        except (OSError, EOFError):  # the process that forks was killed meanwhile; the next attempt makes another
            return None
        self._process = process
        if self.ending.is_set():  # it was not there yet to be asked
            process.terminate()
        await _ended(process)
        process.join()
        return process.exitcode

    async def end(self) -> None:
        """Ask it to end, and make it when it does not."""
        process = self._process
        if process is None or process.exitcode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(_ended(process), _END_SECONDS)
        except TimeoutError:
            process.kill()


async def up(settings: Settings, variables: Mapping[str, str], progress: Callable[[str], None]) -> None:
    """Run every service in its own process until SIGTERM or SIGINT; all of them get the LETTA_* `variables`."""
    async with _prepared(settings, progress) as url:
        environment = {**variables, "LETTA_DATABASE_URL": url, "LETTA_HOME": str(settings.home)}
        await _run([ServiceProcess(name, program(name), environment) for name in SERVICES], _ENDED_TOGETHER)


async def workers(
    settings: Settings, number: int, variables: Mapping[str, str], progress: Callable[[str], None]
) -> None:
    """Run so many processes that each serve everything on the same ports, until SIGTERM or SIGINT."""
    async with _prepared(settings, progress, connections=number * _CONNECTIONS_OF_WORKER) as url:
        common = {**variables, "LETTA_DATABASE_URL": url, "LETTA_HOME": str(settings.home), "LETTA_SHARE_PORTS": "true"}
        names = [f"worker_{place}" for place in range(number)]
        await _run(
            [ServiceProcess(name, WORKER, common | _own_ports(settings, place)) for place, name in enumerate(names)],
            [names],
        )


def _own_ports(settings: Settings, place: int) -> dict[str, str]:
    """Return where a worker is watched: it counts for itself, on a port of its own, `place` above the set one."""
    found = {}
    for name in ("metrics_bind", "channelz_bind"):
        host, _, port = getattr(settings, name).rpartition(":")
        if port:
            found[f"LETTA_{name.upper()}"] = f"{host}:{int(port) + place}"
    return found


@asynccontextmanager
async def _prepared(settings: Settings, progress: Callable[[str], None], *, connections: int = 0) -> AsyncIterator[str]:
    """Yield the address of the upgraded database; meanwhile the process that others fork from loads what they need."""
    _forks.set_forkserver_preload(["letta_cli.servers.preloaded"])
    forkserver.ensure_running()
    async with database(settings, _upgrade, progress, connections=max(200, connections)) as url:
        progress("starting the services ...")
        yield url


async def _run(processes: Sequence[ServiceProcess], ended_together: Sequence[Collection[str]]) -> None:
    end = termination()
    tasks = [asyncio.create_task(process.run()) for process in processes]
    await end.wait()
    for process in processes:
        process.ending.set()
    for names in ended_together:
        await asyncio.gather(*(process.end() for process in processes if process.name in names))
    await asyncio.gather(*tasks)


async def _upgrade(url: str) -> None:
    """Upgrade the schemas in a process that has what it takes loaded. Ends this one when that fails, as it has told."""
    process = _forks.Process(target=upgrade_schemas, args=(url,))
    await asyncio.to_thread(process.start)
    await _ended(process)
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def upgrade_schemas(url: str) -> None:
    """Upgrade the schemas of a database and end."""
    from letta_cli.servers.schemas import upgrade_all  # noqa: PLC0415 where processes fork from, it is loaded

    end_with_parent()
    with failures_told():
        asyncio.run(upgrade_all(url))


def serve(name: str, module: str, environment: Mapping[str, str]) -> None:
    """Run the `main` of a module, until the process that this one was forked from ends."""
    os.environ.update(environment)
    end_with_parent()
    _control(_PR_SET_NAME, f"letta_{name}".encode())  # what `ps -e` and `pgrep` show
    importlib.import_module(module).main()


def end_with_parent() -> None:
    """Let the kernel end this process with the thread that started it, however that one ends."""
    _control(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _control(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":  # other kernels have no such call: there a service outlives a killed `letta up`
        _libc.prctl(option, value)


def program(service: str) -> str:
    """Return the module whose `main` runs a service."""
    return f"letta_{service}.__main__"


async def _ended(process: multiprocessing.process.BaseProcess) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.dup(process.sentinel)  # one reader a descriptor: two may wait for the same process
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
