"""Modal's API and the router to its sandboxes on one port, as far as calls need them. Sandboxes are directories."""

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import empty_pb2
from modal_proto import api_pb2, api_pb2_grpc
from modal_proto import task_command_router_pb2 as router_pb2
from modal_proto import task_command_router_pb2_grpc as router_pb2_grpc

from tests.fakes.machine_rooms import Room

TOKEN = ("ak-letta", "as-secret")


class FakeModal(api_pb2_grpc.ModalClientServicer, router_pb2_grpc.TaskCommandRouterServicer):
    """Keeps what it was asked for in `created`; the sandboxes that are left in `sandboxes`.

    `faults` are statuses that the next requests to create are answered with.
    """

    def __init__(self) -> None:
        self.created: list[api_pb2.SandboxCreateV2Request] = []
        self.images: list[api_pb2.ImageGetOrCreateRequest] = []
        self.sandboxes: dict[str, dict] = {}
        self.faults: list[grpc.StatusCode] = []
        self.garbage = b""
        self.running = threading.Event()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(128))
        self._server: grpc.aio.Server | None = None
        listening = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(listening,), daemon=True)
        self._thread.start()
        listening.wait(20)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self, name: str) -> None:
        sandbox = self.sandboxes.pop(name, None)
        if sandbox is not None:
            sandbox["room"].end()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(0), self._loop).result(20)
        for name in list(self.sandboxes):
            self.end(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def _serve(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        listening.set()
        self._loop.run_forever()

    async def _begin(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
        api_pb2_grpc.add_ModalClientServicer_to_server(self, self._server)
        router_pb2_grpc.add_TaskCommandRouterServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def _check(self, context: grpc.aio.ServicerContext) -> None:
        said = dict(context.invocation_metadata())
        if (said.get("x-modal-token-id"), said.get("x-modal-token-secret")) != TOKEN:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not valid")

    async def ClientHello(self, request, context):
        await self._check(context)
        return api_pb2.ClientHelloResponse()

    async def AuthTokenGet(self, request, context):
        await self._check(context)
        return api_pb2.AuthTokenGetResponse(token=_jwt())

    async def AppGetOrCreate(self, request, context):
        await self._check(context)
        return api_pb2.AppGetOrCreateResponse(app_id=f"ap-{request.app_name}")

    async def EnvironmentGetOrCreate(self, request, context):
        settings = api_pb2.EnvironmentSettings(image_builder_version="2025.06")
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id="en-1", metadata=api_pb2.EnvironmentMetadata(name="main", settings=settings)
        )

    async def ImageGetOrCreate(self, request, context):
        self.images.append(request)
        done = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(image_id="im-1", result=done)

    async def SandboxCreateV2(self, request, context):
        await self._check(context)
        if self.faults:
            await context.abort(self.faults.pop(0), "the cloud has a fault")
        self.created.append(request)
        name = f"sb-{os.urandom(13).hex()}"
        tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        self.sandboxes[name] = {"room": Room(), "tags": tags, "made": time.time(), "commands": {}, "request": request}
        access = api_pb2.CommandRouterAccess(url=self.address, jwt=_jwt())
        return api_pb2.SandboxCreateV2Response(sandbox_id=name, task_id=f"ta-{name[3:]}V", command_router_access=access)

    async def SandboxListV2(self, request, context):
        await self._check(context)
        wanted = {tag.tag_name: tag.tag_value for tag in request.tags}
        found = [
            api_pb2.SandboxInfo(id=name, created_at=sandbox["made"], app_id=sandbox["request"].app_id)
            for name, sandbox in self.sandboxes.items()
            if wanted.items() <= sandbox["tags"].items()
            and sandbox["request"].app_id == request.app_id
            and (not request.before_timestamp or sandbox["made"] < request.before_timestamp)
        ]
        return api_pb2.SandboxListResponse(sandboxes=sorted(found, key=lambda item: -item.created_at))

    async def SandboxTagsGetV2(self, request, context):
        tags = (await self._sandbox(request.sandbox_id, context))["tags"]
        return api_pb2.SandboxTagsGetResponse(
            tags=[api_pb2.SandboxTag(tag_name=name, tag_value=value) for name, value in tags.items()]
        )

    async def SandboxTerminateV2(self, request, context):
        self.end(request.sandbox_id)
        return api_pb2.SandboxTerminateResponse()

    async def SandboxGetCommandRouterAccess(self, request, context):
        return api_pb2.SandboxGetCommandRouterAccessResponse(url=self.address, jwt=_jwt())

    async def AppClientDisconnect(self, request, context):
        return empty_pb2.Empty()

    async def TaskExecStart(self, request, context):
        sandbox = await self._sandbox(f"sb-{request.task_id[3:-1]}", context)
        if request.exec_id not in sandbox["commands"]:
            command = sandbox["commands"][request.exec_id] = _Command(self.garbage)
            if not self.garbage:
                command.begin(sandbox["room"].run(request.command_args))
        self.running.set()
        return router_pb2.TaskExecStartResponse()

    async def TaskExecStdinWrite(self, request, context):
        await (await self._command(request, context)).write(request.data)
        return router_pb2.TaskExecStdinWriteResponse()

    async def TaskExecStdioRead(self, request, context):
        command = await self._command(request, context)
        if request.file_descriptor == router_pb2.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDERR:
            return
        async for piece in command.read(request.offset):
            yield router_pb2.TaskExecStdioReadResponse(data=piece)
        await self._command(request, context)  # it may be gone

    async def _sandbox(self, name: str, context: grpc.aio.ServicerContext) -> dict:
        if name not in self.sandboxes:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no sandbox {name}")
        return self.sandboxes[name]

    async def _command(self, request, context: grpc.aio.ServicerContext) -> "_Command":
        sandbox = await self._sandbox(f"sb-{request.task_id[3:-1]}", context)
        return sandbox["commands"][request.exec_id]


class _Command:
    """A command in a sandbox, and what it has written so far."""

    def __init__(self, written: bytes) -> None:
        self._written = bytearray(written)
        self._ended = bool(written)
        self._changed = asyncio.Condition()
        self._process: subprocess.Popen | None = None

    def begin(self, process: subprocess.Popen) -> None:
        self._process = process
        self._reading = asyncio.create_task(self._read_all(process))

    async def write(self, data: bytes) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError, ValueError):
                await asyncio.to_thread(_written, self._process.stdin, data)

    async def read(self, offset: int) -> AsyncIterator[bytes]:
        while True:
            async with self._changed:
                while not self._ended and len(self._written) <= offset:
                    await self._changed.wait()
            piece = bytes(self._written[offset : offset + (1 << 20)])
            if not piece:
                return
            offset += len(piece)
            yield piece

    async def _read_all(self, process: subprocess.Popen) -> None:
        while piece := await asyncio.to_thread(os.read, process.stdout.fileno(), 1 << 15):
            await self._tell(piece)
        await asyncio.to_thread(process.__exit__, None, None, None)
        self._ended = True
        await self._tell(b"")

    async def _tell(self, piece: bytes) -> None:
        async with self._changed:
            self._written += piece
            self._changed.notify_all()


def _jwt() -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + 3600}).encode()).decode().rstrip("=")
    return f"e30.{payload}.x"


def _written(pipe, data: bytes) -> None:
    pipe.write(data)
    pipe.flush()
