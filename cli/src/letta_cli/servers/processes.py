"""Every service in a process of its own, started again when it ends unbidden."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping

import structlog

from letta_cli.servers.databases import database
from letta_common.process.settings import Settings
from letta_rpc.server import termination

SERVICES = ("auth", "tools", "llm_gateway", "memory", "agent", "gateway")
_ENDED_TOGETHER = (("gateway",), ("agent",), ("memory", "tools", "llm_gateway"), ("auth",))  # callers before called
_PR_SET_PDEATHSIG = 1
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_SECONDS = 30.0
_END_SECONDS = 15.0
_log = structlog.get_logger("letta.up")
_libc = ctypes.CDLL(None, use_errno=True)


class ServiceProcess:
    """One service, kept running until it is asked to end."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False

    async def run(self) -> None:
        """Start the service, and start it again with growing pauses when it ends."""
        failures = 0
        while not self._ending:
            begun = asyncio.get_running_loop().time()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"letta_{self.name}", env=self._environment, preexec_fn=_end_with_parent
            )
            status = await self._process.wait()
            if self._ending:
                return
            steady = asyncio.get_running_loop().time() - begun > _STEADY_SECONDS
            failures = 0 if steady else failures + 1
            pause = _PAUSES[min(failures, len(_PAUSES)) - 1] if failures else 0.0
            _log.warning("service ended", service=self.name, status=status, again_in_seconds=pause)
            await asyncio.sleep(pause)

    async def end(self) -> None:
        """Ask the service to end, and make it when it does not."""
        self._ending = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()


async def up(settings: Settings, variables: Mapping[str, str], progress: Callable[[str], None]) -> None:
    """Run every service in its own process until SIGTERM or SIGINT; all of them get the LETTA_* `variables`."""
    async with database(settings, progress) as url:
        progress("starting the services ...")
        environment = {**os.environ, **variables, "LETTA_DATABASE_URL": url, "LETTA_HOME": str(settings.home)}
        end = termination()
        processes = [ServiceProcess(name, environment) for name in SERVICES]
        tasks = [asyncio.create_task(process.run()) for process in processes]
        await end.wait()
        for names in _ENDED_TOGETHER:
            await asyncio.gather(*(process.end() for process in processes if process.name in names))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end_with_parent() -> None:
    """Let the kernel end this process with its parent, however the parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
