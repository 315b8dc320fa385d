"""Machines that are sandboxes of E2B: a microVM each, without internet."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from letta_tools.domain.execution import Isolation
from letta_tools.providers.remote.machines import Job, MachineFailed

_INPUT = "/tmp/letta-job"  # noqa: S108 - in the machine
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class E2BOptions:
    """Whose sandboxes of which template. The addresses are for deployments of one's own."""

    api_key: str = ""
    template: str = ""
    api_url: str = ""
    sandbox_url: str = ""


class E2BMachines:
    """Starts a sandbox for each job and ends it. Raises RuntimeError where the SDK is not installed."""

    name = "e2b"
    isolation = Isolation.VM

    def __init__(self, options: E2BOptions) -> None:
        try:
            self._e2b: Any = importlib.import_module("e2b")
        except ImportError as error:
            raise RuntimeError("the provider e2b needs the extra `letta-tools[e2b]`") from error
        self._template = options.template or None
        self._connection = {
            name: value
            for name, value in (
                ("api_key", options.api_key),
                ("api_url", options.api_url),
                ("sandbox_url", options.sandbox_url),
            )
            if value
        }

    async def run(self, job: Job) -> bytes:
        """Run a job in a sandbox of its own. Raises MachineFailed."""
        with self._failing():
            sandbox = await self._create(job)
            try:
                async with asyncio.timeout(job.limits.timeout_seconds + 2 * _ANSWER_SECONDS):
                    return await self._exchange(sandbox, job)
            finally:
                await asyncio.shield(self._end(sandbox))

    async def close(self) -> None:
        """Nothing is kept between calls."""

    async def _create(self, job: Job) -> Any:
        """Create the sandbox; it ends by itself should nobody be left to end it."""
        seconds = math.ceil(job.limits.timeout_seconds + 3 * _ANSWER_SECONDS)
        return await self._e2b.AsyncSandbox.create(
            template=self._template,
            timeout=seconds,
            allow_internet_access=False,
            metadata={"letta": "tool-call"},
            request_timeout=_ANSWER_SECONDS,
            **self._connection,
        )

    async def _exchange(self, sandbox: Any, job: Job) -> bytes:
        await sandbox.files.write(_INPUT, job.data, use_octet_stream=True, request_timeout=_ANSWER_SECONDS)
        parts: list[str] = []
        size = 0
        exceeded = asyncio.Event()

        def keep(text: str) -> None:
            nonlocal size
            size += len(text)
            if size > job.most_bytes:
                exceeded.set()
            else:
                parts.append(text)

        handle = await sandbox.commands.run(
            f"exec python3 -I -B -c {shlex.quote(job.program)} < {_INPUT}",
            background=True,
            on_stdout=keep,
            timeout=job.limits.timeout_seconds + _ANSWER_SECONDS,
            request_timeout=_ANSWER_SECONDS,
        )
        await _first(handle.wait(), exceeded.wait())
        if exceeded.is_set():
            raise MachineFailed(f"the machine wrote more than {job.most_bytes} bytes")
        return "".join(parts).encode()

    async def _end(self, sandbox: Any) -> None:
        with contextlib.suppress(MachineFailed), self._failing():
            await sandbox.kill(request_timeout=_ANSWER_SECONDS)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn what the SDK and the connection raise, which has no common class, into MachineFailed."""
        try:
            yield
        except MachineFailed:
            raise
        except TimeoutError as error:
            raise MachineFailed("the machine did not answer in time") from error
        except Exception as error:
            raise MachineFailed(f"{type(error).__name__}: {error}"[:500]) from error


async def _first(*waits: Any) -> None:
    """Wait for the first of these; raise what it raised, cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
