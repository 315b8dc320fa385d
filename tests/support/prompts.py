"""Prompts as the contract carries them, and requests of wires as a vendor reads them."""

from __future__ import annotations

import json
from typing import Any

from letta.common.v1.message_pb2 import Message
from letta_llm_gateway.providers.wires.bodies import Body


def kept(*messages: Message) -> list[bytes]:
    """Return messages as they are kept, and so as a prompt has them."""
    return [message.SerializeToString() for message in messages]


def sent(body: Body) -> dict[str, Any]:
    """Return a request as the vendor reads it."""
    read: dict[str, Any] = json.loads(body.encoded())
    return read
