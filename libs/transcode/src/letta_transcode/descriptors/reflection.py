"""Reads the descriptors of a server through gRPC reflection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# In order: servers in other languages may speak the older version alone. Both have the same messages.
_METHODS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
_OWN = "grpc."
"""Package of gRPC's own services, which are not part of any API."""


class ReflectionError(Exception):
    """The server does not describe itself."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a server says of itself: serialized file descriptors and the names of its services."""

    files: tuple[bytes, ...]
    services: tuple[str, ...]


async def read(channel: grpc.aio.Channel, *, timeout: float) -> Descriptors:  # noqa: ASYNC109  a gRPC deadline
    """Ask a server for its descriptors, by version 1 of the protocol or else v1alpha.

    Raises:
        ReflectionError: the server has no reflection or answers garbage.
        grpc.RpcError: the server cannot be reached.
    """
    for method in _METHODS:
        try:
            return await _Conversation(channel, method, timeout).descriptors()
        except grpc.aio.AioRpcError as error:
            # Only an unknown service means that the server speaks the other version.
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
    raise ReflectionError("the server offers no reflection")


class _Conversation:
    """One reflection stream."""

    def __init__(self, channel: grpc.aio.Channel, method: str, timeout: float) -> None:
        stub: Any = channel.stream_stream(
            method,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        self._stub = stub
        self._timeout = timeout

    async def descriptors(self) -> Descriptors:
        services = [
            each.name
            for answer in await self._ask([reflection_pb2.ServerReflectionRequest(list_services="")])
            for each in answer.list_services_response.service
            if not each.name.startswith(_OWN)
        ]
        files: dict[str, bytes] = {}
        wanted = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in services]
        asked: set[str] = set()
        while wanted:
            for answer in await self._ask(wanted):
                for data in answer.file_descriptor_response.file_descriptor_proto:
                    files.setdefault(_name(data), data)
            # A server sends what its services stand in, and need not send what those files import.
            imports = {each for data in files.values() for each in _imports(data)} - files.keys() - asked
            asked |= imports
            wanted = [reflection_pb2.ServerReflectionRequest(file_by_filename=name) for name in sorted(imports)]
        return Descriptors(tuple(files[name] for name in sorted(files)), tuple(sorted(services)))

    async def _ask(self, requests: list[Any]) -> list[Any]:
        async def send() -> AsyncIterator[Any]:
            for request in requests:
                yield request

        call = self._stub(send(), timeout=self._timeout)
        try:
            return [answer async for answer in call]
        finally:
            call.cancel()


def _parsed(data: bytes) -> descriptor_pb2.FileDescriptorProto:
    try:
        return descriptor_pb2.FileDescriptorProto.FromString(data)
    except DecodeError as error:
        raise ReflectionError(f"a file descriptor cannot be read: {error}") from error


def _name(data: bytes) -> str:
    return _parsed(data).name


def _imports(data: bytes) -> list[str]:
    return list(_parsed(data).dependency)
