"""A small contract that uses every option, compiled at test time, and a gRPC server that describes itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import grpc_tools
from google.protobuf import descriptor_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from letta_transcode.descriptors.catalog import Catalog
from letta_transcode.mapping.codecs import Codecs

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
SERVICE = "toy.v1.ItemService"
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


@cache
def compile_protos(*names: str, source: str = "") -> tuple[bytes, ...]:
    """Compile protos of this directory, or one given as text, to serialized file descriptors."""
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "set.pb"
        if source:
            (Path(made) / "given.proto").write_text(source)
            names = ("given.proto",)
        include = [made, HERE, ROOT / "proto", ROOT / "third_party", Path(grpc_tools.__file__).parent / "_proto"]
        command = [sys.executable, "-m", "grpc_tools.protoc", *(f"-I{path}" for path in include)]
        subprocess.run([*command, "--include_imports", f"--descriptor_set_out={out}", *names], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
        return tuple(file.SerializeToString() for file in files)


def toy_files() -> tuple[bytes, ...]:
    return compile_protos("toy.proto")


@cache
def toy_catalog() -> Catalog:
    return Catalog(toy_files(), [SERVICE])


def codecs_of(source: str) -> Codecs:
    """Return the codecs of messages given as the body of a proto file."""
    head = (
        'syntax = "proto3";\npackage given.v1;\n'
        'import "google/api/field_behavior.proto";\nimport "google/protobuf/field_mask.proto";\n'
        'import "google/protobuf/timestamp.proto";\nimport "letta/jsonmap/v1/annotations.proto";\n'
    )
    return Codecs(Catalog(compile_protos(source=head + source), []))


def message(name: str) -> Any:
    return toy_catalog().message_class(f"toy.v1.{name}")()


@dataclass
class Toy:
    """The servicer, and what its callers did."""

    catalog: Catalog = field(default_factory=toy_catalog)
    metadata: dict[str, Any] = field(default_factory=dict)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    created: list[Any] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    came: int = 0
    sized: bool = False

    def forget(self) -> None:
        """Become as new."""
        self.metadata, self.created = {}, []
        self.cancelled, self.begun = asyncio.Event(), asyncio.Event()
        self.gate, self.ended = asyncio.Event(), asyncio.Event()
        self.came, self.sized = 0, False

    def new(self, kind: str, /, **fields: Any) -> Any:
        return self.catalog.message_class(f"toy.v1.{kind}")(**fields)

    async def CreateItem(self, request: Any, context: Any) -> Any:
        self.metadata = dict(context.invocation_metadata())
        self.created.append(request)
        answer = self.new("CreateItemResponse", item=request.item)
        answer.item.id = "item-1"
        answer.item.description = request.project
        return answer

    async def GetItem(self, request: Any, context: Any) -> Any:
        if request.item_id in ERRORS:
            await fail(context, *ERRORS[request.item_id])
        if request.item_id == "crash":
            raise RuntimeError("a secret of the server")
        if request.item_id == "slow":
            await self._hang()
        return self.new("GetItemResponse", item=self.new("Item", id=request.item_id, label="a", limit=1))

    async def ListItems(self, request: Any, context: Any) -> Any:
        names = [f"item-{number}" for number in range(1, 8)]
        if request.filter.name:
            names = [name for name in names if request.filter.name in name]
        start = names.index(request.after) + 1 if request.after else 0
        page = names[start : start + request.limit]
        tags = [*request.tags, str(request.color)]
        return self.new("ListItemsResponse", items=[self.new("Item", id=name, tags=tags) for name in page])

    async def CountItems(self, request: Any, context: Any) -> Any:
        return self.new("CountItemsResponse", count=2**53 + 1)

    async def UpdateItem(self, request: Any, context: Any) -> Any:
        return self.new("UpdateItemResponse", item=request.item, mask=request.update_mask)

    async def ReplaceItem(self, request: Any, context: Any) -> Any:
        return self.new("ReplaceItemResponse", mask=request.update_mask, force=request.force)

    async def DeleteItem(self, request: Any, context: Any) -> Any:
        return self.new("DeleteItemResponse")

    ForgetItem = DeleteItem

    async def Send(self, request: Any, context: Any) -> Any:
        note = self.new("Note", id="note-1", said_message=self.new("Said", text=request.input or "nothing"))
        return self.new("SendResponse", notes=[*request.notes, note])

    async def Stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.input == "fail first":
            await fail(context, *ERRORS["missing"])
        for word in request.input.split():
            said = self.new("Said", text=word)
            yield self.new("StreamResponse", event={"note": {"id": "note-1", "said_message": said}})
            if word == "break":
                await fail(context, *ERRORS["busy"])
            if word == "hang":
                await self._hang()
        if request.input == "report":
            yield self.new("StreamResponse", event={"error_message": {"message": "the model refused"}})
        yield self.new("StreamResponse", event={"stop_reason": {"stop_reason": "end_turn"}})

    async def Download(self, request: Any, context: Any) -> Any:
        kind = self.catalog.message_class("google.api.HttpBody")
        return kind(content_type="text/plain", data=request.name.encode())

    async def Upload(self, request: Any, context: Any) -> Any:
        file = request.file
        return self.new(
            "UploadResponse",
            folder=request.folder,
            file_name=file.file_name,
            content_type=file.content_type,
            size=len(file.content),
            name=request.name,
            copies=request.copies,
        )

    async def UploadInPieces(self, requests: AsyncIterator[Any], context: Any) -> Any:
        first = await anext(requests)
        if first.file.file_name in ERRORS:
            await fail(context, *ERRORS[first.file.file_name])
        waits = first.name == "wait"  # for leave to read on; then it may be large, and is not kept
        if waits:
            await self.gate.wait()
        last, self.created = first, [first]
        async for last in requests:
            self.came += len(last.file.content)
            self.created += [] if waits else [last]
        self.sized = last.file.HasField("size")
        self.ended.set()
        if not self.sized:
            await fail(context, *ERRORS["invalid"])
        first.file.content = b"".join(each.file.content for each in self.created)
        return await self.Upload(first, context)

    async def TakeNotes(self, requests: AsyncIterator[Any], context: Any) -> Any:
        async for request in requests:
            self.begun.set()
            self.created.append(request)
            if request.item_id in ERRORS:
                await fail(context, *ERRORS[request.item_id])
        first = self.created[0]
        counts = [len(request.notes) for request in self.created]
        return self.new("TakeNotesResponse", counts=counts, item_id=first.item_id, copies=first.copies)

    async def GiveNotes(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(0, 0 if request.item_id == "empty" else 4, 2):
            said = [self.new("Said", text=f"{number + more}\n") for more in range(2)]
            notes = [self.new("Note", id="note-1", said_message=each) for each in said]
            yield self.new("GiveNotesResponse", notes=notes)
            if request.item_id in ERRORS:
                await fail(context, *ERRORS[request.item_id])

    async def PutBlob(self, request: Any, context: Any) -> Any:
        return self.new("PutBlobResponse", content_type=request.blob.content_type, size=len(request.blob.data))

    async def Echo(self, request: Any, context: Any) -> Any:
        if request.text in ERRORS:
            await fail(context, *ERRORS[request.text])
        return request

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(3):
            yield self.new("CountItemsResponse", count=number)

    async def Secret(self, request: Any, context: Any) -> Any:
        raise AssertionError("nobody may get here")

    async def _hang(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def _info(reason: str, **metadata: str) -> Any:
    return error_details_pb2.ErrorInfo(reason=reason, domain="toy", metadata=metadata)


def _bad_request(path: str, text: str) -> Any:
    violation = error_details_pb2.BadRequest.FieldViolation(field=path, description=text)
    return error_details_pb2.BadRequest(field_violations=[violation])


_RETRY = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500))
_CODES = grpc.StatusCode
ERRORS: dict[str, tuple[grpc.StatusCode, str, list[Any]]] = {
    "missing": (_CODES.NOT_FOUND, "no such item", [_info("AGENT_NOT_FOUND")]),
    "plain": (_CODES.FAILED_PRECONDITION, "not now", []),
    "busy": (_CODES.ABORTED, "a run is busy", [_info("CONVERSATION_BUSY", run_id="run-1"), _RETRY]),
    "approval": (_CODES.FAILED_PRECONDITION, "answer first", [_info("PENDING_APPROVAL", pending_request_id="m-1")]),
    "model": (_CODES.RESOURCE_EXHAUSTED, "no credit", [_info("LLM_INSUFFICIENT_CREDITS", detail="pay")]),
    "invalid": (_CODES.INVALID_ARGUMENT, "item_id: bad", [_info("VALIDATION_FAILED"), _bad_request("item_id", "bad")]),
    "unknown-reason": (_CODES.NOT_FOUND, "nothing", [_info("NEVER_HEARD_OF")]),
}


async def fail(context: Any, code: grpc.StatusCode, text: str, details: Sequence[Any]) -> None:
    """End a call with a rich status."""
    status = status_pb2.Status(code=code.value[0], message=text)
    for each in details:
        status.details.add().Pack(each)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(code, text)


_KINDS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
}


def handlers(servicer: Any, catalog: Catalog, service: str) -> dict[str, Any]:
    """Return the method handlers of a servicer, made from descriptors."""
    found: dict[str, Any] = {}
    for method in next(each for each in catalog.services() if each.full_name == service).methods:
        make: Callable[..., Any] = _KINDS[method.client_streaming, method.server_streaming]
        request = catalog.message_class(method.input_type.full_name)
        response = catalog.message_class(method.output_type.full_name)
        behaviour = getattr(servicer, method.name)
        found[method.name] = make(behaviour, request.FromString, response.SerializeToString)
    return found


@asynccontextmanager
async def toy_server(
    servicer: Any, *, catalog: Catalog | None = None, service: str = SERVICE, port: int = 0, versions: str = "both"
) -> AsyncIterator[int]:
    """Serve a servicer with reflection; yield the port."""
    catalog = catalog or toy_catalog()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 32 << 20)])
    generic = grpc.method_handlers_generic_handler(service, handlers(servicer, catalog, service))
    server.add_generic_rpc_handlers((generic,))
    names = [service, "grpc.reflection.v1alpha.ServerReflection"]
    if versions != "none":
        offer_reflection(server, names, catalog.pool, versions)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def offer_reflection(server: Any, names: Sequence[str], pool: Any, versions: str) -> None:
    """Add reflection in version 1, v1alpha or both."""
    alpha = reflection.aio.ReflectionServicer(names, pool=pool)
    handler = grpc.stream_stream_rpc_method_handler(
        alpha.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    offered = {"v1": [REFLECTION_V1], "v1alpha": ["grpc.reflection.v1alpha.ServerReflection"]}
    for name in offered.get(versions, offered["v1"] + offered["v1alpha"]):
        methods = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        server.add_registered_method_handlers(name, methods)
