"""What a message costs on its way to a vendor, for histories of several lengths that are all in context.

Counts come from outside the code that is counted: what it calls is seen by the interpreter's profiler, what a vendor is
asked by a server that speaks its wire.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from letta.common.v1.message_pb2 import Message
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Json, Step, Vendor

LENGTHS = (10, 1_000, 10_000)
"""Messages in context."""
MODELS = {"openai": "openai/roomy", "anthropic": "anthropic/claude-sonnet-4-5"}
ROUNDS = 4
_WINDOW = 4_000_000
_PARSERS = frozenset({"FromString", "ParseFromString", "MergeFromString"})
_SERVICES, _WIRES, _CHANNEL = "/services/", "/providers/wires/", "letta_local_channel/channel.py"
_GENERATIONS = "/letta.llm.v1.GenerationService/"


@asynccontextmanager
async def vendors() -> AsyncIterator[tuple[dict[str, Any], Counter[str]]]:
    """Run vendors of zero latency; give the settings that lead to them, and what counts the requests to each."""
    asked: Counter[str] = Counter()
    async with AsyncExitStack() as ends:
        openai = await ends.enter_async_context(OpenAIServer(record=False))
        anthropic = await ends.enter_async_context(AnthropicServer(record=False))
        openai.models = [{"id": "roomy", "object": "model", "context_window": _WINDOW}]
        for name, vendor in (("openai", openai), ("anthropic", anthropic)):
            vendor.respond = _counted(asked, name, vendor)
        settings = {"openai_base_url": openai.base_url, "openai_api_key": "k"}
        yield {**settings, "anthropic_base_url": anthropic.base_url, "anthropic_api_key": "k"}, asked


def _counted(asked: Counter[str], name: str, vendor: Vendor) -> Callable[[Json], Step]:
    def respond(body: Json) -> Step:
        asked[name] += 1
        return vendor.default(body)

    return respond


@contextmanager
def work() -> Iterator[Counter[str]]:
    """Count the messages that services parse and that wires render, and the bytes that go to the model gateway."""
    found: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, value: Any) -> None:
        code = frame.f_code
        if event == "c_call":
            if value.__name__ in _PARSERS and _SERVICES in code.co_filename and _is_message(value.__self__):
                found["parsed"] += 1
        elif event == "call":
            if code.co_name == "made" and _WIRES in code.co_filename:
                found["rendered"] += 1
            elif code.co_name == "fits" and code.co_filename.endswith(_CHANNEL):
                call, data = frame.f_locals["self"], frame.f_locals["data"]
                found["bytes"] += len(data) if call.method.startswith(_GENERATIONS) else 0

    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(None)


def _is_message(owner: Any) -> bool:
    return owner is Message or isinstance(owner, Message)


async def work_of(send: Callable[[str], Awaitable[Any]], asked: Counter[str], vendor: str) -> dict[str, float]:
    """Send a text a few times, after it was sent before; return the work of one."""
    before = asked[vendor]
    with work() as found:
        for _ in range(ROUNDS):
            await send("Hello!")
    return {
        "requests": (asked[vendor] - before) / ROUNDS,
        "parsed": found["parsed"] / ROUNDS,
        "rendered": found["rendered"] / ROUNDS,
        "bytes_to_llm_gateway": found["bytes"] / ROUNDS,
    }
