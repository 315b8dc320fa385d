"""Every service in a process of its own, started again when it ends unbidden.

The processes fork from one that has loaded all services (`multiprocessing`'s fork server), so that a start costs
milliseconds in place of seconds and the pages of the modules are there once.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import forkserver

import structlog

from letta_cli.servers.databases import database
from letta_common.process.settings import Settings
from letta_rpc.server import termination

SERVICES = ("auth", "tools", "llm_gateway", "memory", "agent", "gateway")
_ENDED_TOGETHER = (("gateway",), ("agent",), ("memory", "tools", "llm_gateway"), ("auth",))  # callers before called
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
    """One service, kept running until it is asked to end."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._environment = environment
        self.ending = asyncio.Event()
        self._process: multiprocessing.process.BaseProcess | None = None

    async def run(self) -> None:
        """Start the service, and start it again with growing pauses when it ends."""
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
        """Run the service until it ends; return its exit code, minus the signal that ended it, None without a start."""
        process = _forks.Process(target=serve, args=(self.name, self._environment))
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
        """Ask the service to end, and make it when it does not."""
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
    _forks.set_forkserver_preload(["letta_cli.servers.preloaded"])
    forkserver.ensure_running()  # it loads the modules while the database starts
    async with database(settings, progress) as url:
        progress("starting the services ...")
        end = termination()
        environment = {**variables, "LETTA_DATABASE_URL": url, "LETTA_HOME": str(settings.home)}
        processes = [ServiceProcess(name, environment) for name in SERVICES]
        tasks = [asyncio.create_task(process.run()) for process in processes]
        await end.wait()
        for process in processes:
            process.ending.set()
        for names in _ENDED_TOGETHER:
            await asyncio.gather(*(process.end() for process in processes if process.name in names))
        await asyncio.gather(*tasks)


def serve(name: str, environment: Mapping[str, str]) -> None:
    """Be the service of this name, until the process that this one was forked from ends."""
    os.environ.update(environment)
    end_with_parent()
    _control(_PR_SET_NAME, program(name).partition(".")[0].encode())  # what `ps -e` and `pgrep` show
    importlib.import_module(program(name)).main()


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
