"""Prompts written down for the provider trace."""

from __future__ import annotations

from google.protobuf.json_format import MessageToJson

from letta.llm.v1 import generation_service_pb2 as pb

_MOST = 1 << 20


def described(prompt: pb.Prompt) -> str:
    """Write a prompt as JSON, images left out, cut to a readable size."""
    copy = pb.Prompt()
    copy.CopyFrom(prompt)
    for message in copy.messages:
        for part in message.parts:
            if part.HasField("image"):
                part.image.Clear()
    return MessageToJson(copy, preserving_proto_field_name=True, indent=None)[:_MOST]
