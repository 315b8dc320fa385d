"""Machines that are sandboxes of E2B: a microVM each, without internet."""

from __future__ import annotations

import asyncio
import math
import secrets
import shlex
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from letta_sandbox.calls import Isolation
from letta_sandbox.remote import sdks
from letta_sandbox.remote.machines import (
    ANSWER_SECONDS,
    ROLE,
    TOOL_CALL,
    Job,
    Output,
    Shape,
    StandingMachine,
    TooMuchOutput,
)


@dataclass(frozen=True, slots=True)
class E2BOptions:
    """Whose sandboxes of which template. The addresses are for deployments of one's own."""

    api_key: str = ""
    template: str = ""
    api_url: str = ""
    sandbox_url: str = ""


class E2BMachines:
    """Sandboxes of one account. Raises RuntimeError where the SDK is not installed."""

    name = "e2b"
    isolation = Isolation.VM

    def __init__(self, options: E2BOptions) -> None:
        self._e2b = sdks.load("e2b", "e2b")
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

    async def closed_to(self) -> tuple[()]:
        """Nothing is in reach without a network."""
        return ()

    async def start(self, shape: Shape) -> E2BMachine:
        """Create a sandbox; it ends by itself should nobody be left to end it. Raises MachineFailed, MachinesBusy."""
        with self.failing():
            sandbox = await self._e2b.AsyncSandbox.create(
                template=shape.template or self._template,
                timeout=shape.seconds,
                allow_internet_access=False,
                metadata=dict(shape.labels),
                request_timeout=ANSWER_SECONDS,
                **self._connection,
            )
        return E2BMachine(self, sandbox.sandbox_id, sandbox)

    async def standing(self) -> list[StandingMachine]:
        """Return the sandboxes that are there, whoever started them. Raises MachineFailed."""
        found: list[StandingMachine] = []
        with self.failing():
            query = self._e2b.SandboxQuery(metadata={ROLE: TOOL_CALL})
            pages = self._e2b.AsyncSandbox.list(query=query, request_timeout=ANSWER_SECONDS, **self._api())
            while pages.has_next:
                found += [
                    StandingMachine(E2BMachine(self, item.sandbox_id), item.metadata)
                    for item in await pages.next_items()
                ]
        return found

    async def close(self) -> None:
        """Nothing is kept between calls."""

    async def kill(self, sandbox_id: str) -> None:
        """End a sandbox. Raises MachineFailed."""
        with self.failing():
            await self._e2b.AsyncSandbox.kill(sandbox_id, request_timeout=ANSWER_SECONDS, **self._api())

    def failing(self) -> AbstractContextManager[None]:
        """Turn what the SDK and the connection raise into MachineFailed or MachinesBusy."""
        return sdks.failing(self._e2b.RateLimitException)

    def _api(self) -> dict[str, str]:
        return {name: value for name, value in self._connection.items() if name != "sandbox_url"}


class E2BMachine:
    """One sandbox; its number is enough to end it."""

    def __init__(self, machines: E2BMachines, sandbox_id: str, sandbox: Any = None) -> None:
        self._machines = machines
        self._sandbox_id = sandbox_id
        self._sandbox = sandbox

    async def run(self, job: Job) -> bytes:
        """Run a job in the sandbox. Raises MachineFailed, MachineLost, TooMuchOutput."""
        path = f"/tmp/letta-job-{secrets.token_hex(8)}"  # noqa: S108 - in the machine
        with self._machines.failing():
            await self._sandbox.files.write(path, job.data, use_octet_stream=True, request_timeout=ANSWER_SECONDS)
        with sdks.handed_over(), self._machines.failing():
            async with asyncio.timeout(job.patience):
                return await self._exchange(path, job)

    async def end(self) -> None:
        """End the sandbox. Raises MachineFailed."""
        await self._machines.kill(self._sandbox_id)

    async def _exchange(self, path: str, job: Job) -> bytes:
        output = Output(job.most_bytes)
        exceeded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def keep(text: str) -> None:
            try:
                output.add(text.encode())
            except TooMuchOutput as error:
                if not exceeded.done():
                    exceeded.set_exception(error)

        handle = await self._sandbox.commands.run(
            f"exec < {path} && rm -f {path} && exec {shlex.join(job.command)}",
            background=True,
            on_stdout=keep,
            timeout=math.ceil(job.patience),
            request_timeout=ANSWER_SECONDS,
        )
        await _first(handle.wait(), exceeded)
        return output.written()


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
