"""Methods that anyone may call, health and reflection: what cannot be read is refused there as everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

MALFORMED = "the request cannot be read as a message of this method"
_Context = grpc.aio.ServicerContext[Any, Any]


def for_all(handler: Any) -> Any:
    """Wrap a handler so that a malformed request is INVALID_ARGUMENT."""
    read, write = handler.request_deserializer, handler.response_serializer

    async def decoded(data: bytes, context: _Context) -> Any:
        try:
            return read(data)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, MALFORMED)

    async def unary(data: bytes, context: _Context) -> Any:
        return await (handler.unary_unary or handler.unary_stream)(await decoded(data, context), context)

    async def stream(requests: AsyncIterator[bytes], context: _Context) -> AsyncIterator[Any]:
        async def each() -> AsyncIterator[Any]:
            async for data in requests:
                yield await decoded(data, context)

        async for answer in handler.stream_stream(each(), context):
            yield answer

    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, None, write)
    make = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
    return make(unary, None, write)
