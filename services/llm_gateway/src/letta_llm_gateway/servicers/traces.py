"""TraceService over the domain, and prompts written down for traces."""

from __future__ import annotations

import json
from typing import Any

import grpc.aio
from google.protobuf.json_format import MessageToDict

from letta.llm.v1 import generation_service_pb2, trace_service_pb2_grpc
from letta.llm.v1 import trace_service_pb2 as pb
from letta_common.actor import current_actor
from letta_llm_gateway.domain.accounting.usage import UsageStore, UsageWriter
from letta_llm_gateway.domain.generation.fragments import read

_Context = grpc.aio.ServicerContext[Any, Any]


class TraceServicer(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, store: UsageStore, writer: UsageWriter) -> None:
        self._store = store
        self._writer = writer

    async def GetProviderTrace(
        self, request: pb.GetProviderTraceRequest, context: _Context
    ) -> pb.GetProviderTraceResponse:
        await self._writer.flush()
        found = await self._store.find_trace(current_actor(), request.step_id)
        return pb.GetProviderTraceResponse(trace=found)


def described(prompt: generation_service_pb2.Prompt) -> str:
    """Write a prompt as JSON, images left out."""
    head = generation_service_pb2.Prompt()
    head.CopyFrom(prompt)
    head.ClearField("messages")
    messages = list(map(read, prompt.messages))
    for message in messages:
        for part in message.parts:
            if part.HasField("image"):
                part.image.Clear()
    told = MessageToDict(head, preserving_proto_field_name=True)
    told["messages"] = [MessageToDict(message, preserving_proto_field_name=True) for message in messages]
    return json.dumps(told)
