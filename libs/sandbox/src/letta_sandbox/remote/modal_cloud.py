"""Machines that are sandboxes of Modal: containers under gVisor, without a network."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
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
    MachineLost,
    Output,
    Shape,
    StandingMachine,
)

_PIECE = 4 << 20
_MEBIBYTE = 1 << 20
_CORES = (0.125, 1.0)
_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class ModalOptions:
    """Whose sandboxes of which app. Without a token the SDK's own configuration counts; without an image, Debian."""

    token_id: str = ""
    token_secret: str = ""
    app: str = "letta-tools"
    image: str = ""
    environment: str = ""
    connect_seconds: float = 15.0


class ModalMachines:
    """Sandboxes of one account. Raises RuntimeError where the SDK is not installed."""

    name = "modal"
    isolation = Isolation.NAMESPACE

    def __init__(self, options: ModalOptions) -> None:
        self._modal = sdks.load("modal", "modal")
        self._options = options
        self._client: Any = None
        self._app: Any = None
        self._lock = asyncio.Lock()

    async def closed_to(self) -> tuple[()]:
        """Nothing is in reach without a network."""
        return ()

    async def start(self, shape: Shape) -> ModalMachine:
        """Create a sandbox; it ends by itself should nobody be left to end it. Raises MachineFailed, MachinesBusy."""
        memory = math.ceil(shape.memory_bytes / _MEBIBYTE)
        with self.failing():
            app = await self._connected()
            async with asyncio.timeout(_START_SECONDS):
                sandbox = await self._modal.Sandbox.create.aio(
                    *shape.idle_command,
                    app=app,
                    client=self._client,
                    image=self._image(),
                    timeout=shape.seconds,
                    cpu=_CORES,
                    memory=(memory, memory),
                    block_network=True,
                    tags=dict(shape.labels),
                )
        return ModalMachine(self, sandbox)

    async def standing(self) -> list[StandingMachine]:
        """Return the sandboxes that are there, whoever started them. Raises MachineFailed."""
        found: list[StandingMachine] = []
        with self.failing():
            app = await self._connected()
            async for sandbox in self._modal.Sandbox.list.aio(
                app_id=app.app_id, tags={ROLE: TOOL_CALL}, client=self._client
            ):
                with contextlib.suppress(self._modal.exception.NotFoundError):  # it has ended meanwhile
                    found.append(StandingMachine(ModalMachine(self, sandbox), await sandbox.get_tags.aio()))
        return found

    async def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            await self._client.close.aio()
            self._client = self._app = None

    def failing(self) -> AbstractContextManager[None]:
        """Turn what the SDK and the connection raise into MachineFailed or MachinesBusy."""
        return sdks.failing(self._modal.exception.ResourceExhaustedError)

    async def _connected(self) -> Any:
        """Return the app, which is made when there is none."""
        async with self._lock:
            if self._app is None:
                async with asyncio.timeout(self._options.connect_seconds):
                    options = self._options
                    if self._client is None and options.token_id:
                        self._client = await self._modal.Client.from_credentials.aio(
                            options.token_id, options.token_secret
                        )
                    elif self._client is None:
                        self._client = await self._modal.Client.from_env.aio()
                    self._app = await self._modal.App.lookup.aio(
                        options.app,
                        client=self._client,
                        environment_name=options.environment or None,
                        create_if_missing=True,
                    )
            return self._app

    def _image(self) -> Any:
        if self._options.image:
            return self._modal.Image.from_registry(self._options.image)
        return self._modal.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")


class ModalMachine:
    """One sandbox."""

    def __init__(self, machines: ModalMachines, sandbox: Any) -> None:
        self._machines = machines
        self._sandbox = sandbox

    async def run(self, job: Job) -> bytes:
        """Run a job in the sandbox. Raises MachineFailed, MachineLost, TooMuchOutput."""
        with self._machines.failing():
            async with asyncio.timeout(ANSWER_SECONDS):
                process = await self._sandbox.exec.aio(*job.command, timeout=math.ceil(job.patience), text=False)
        with sdks.handed_over(), self._machines.failing():
            async with asyncio.timeout(job.patience):
                return await _exchange(process, job)

    async def end(self) -> None:
        """End the sandbox. Raises MachineFailed."""
        with self._machines.failing():
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._sandbox.terminate.aio()


async def _exchange(process: Any, job: Job) -> bytes:
    """Hand over the job, return what it writes. Raises MachineLost, TooMuchOutput."""
    for begin in range(0, len(job.data), _PIECE):
        process.stdin.write(job.data[begin : begin + _PIECE])
        await process.stdin.drain.aio()
    output = Output(job.most_bytes)
    async for piece in process.stdout:
        output.add(piece)
    if not output.written():
        raise MachineLost("it wrote nothing")
    return output.written()
