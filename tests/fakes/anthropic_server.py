"""A fake of Anthropic's messages and models: `async with AnthropicServer() as vendor: vendor.base_url`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

from tests.fakes.wire import Fault, Json, Reply, Request, Say, Vendor, arguments_of, cut, frames, id_of


class AnthropicServer(Vendor):
    """Speaks the wire of Anthropic."""

    def __init__(self, *, record: bool = True) -> None:
        super().__init__(record=record)
        self.models = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
            for name in ("claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001")
        ]

    def last_said(self, body: Json) -> tuple[str, str]:
        """Return role and text of the newest message; a result of a tool has role `tool`."""
        content = body["messages"][-1]["content"]
        if isinstance(content, str):
            return "user", content
        if any(part["type"] == "tool_result" for part in content):
            return "tool", ""
        return "user", "".join(part.get("text", "") for part in content)

    async def handle(self, request: Request, out: Reply) -> None:
        """Answer one request."""
        path = request.path.partition("?")[0]
        if self.keys and request.headers.get("x-api-key") not in self.keys:
            await out.json(_error("authentication_error", "invalid x-api-key"), 401)
        elif path == "/v1/models":
            await out.json({"data": self.models, "has_more": False, "first_id": None, "last_id": None})
        elif path == "/v1/messages/count_tokens":
            await out.json({"input_tokens": counted(request.body)})
        elif path == "/v1/messages":
            await self._message(request.body, out)
        else:
            await out.json(_error("not_found_error", path), 404)

    async def _message(self, body: Json, out: Reply) -> None:
        step = self.next_step(body)
        if isinstance(step, Say) and step.fault and not body.get("stream"):
            step = step.fault
        if isinstance(step, Fault):
            if step.kind == "empty":
                await out.json({"id": "msg_1", "type": "message", "role": "assistant"})
            else:
                await out.fail(step, _error("overloaded_error" if step.status == 529 else "api_error", "failed"))
        elif body.get("stream"):
            await out.stream(self._frames(step, body["model"], out))
        else:
            await out.json(_whole(step, body["model"]))

    async def _frames(self, said: Say, model: str, out: Reply) -> AsyncIterator[bytes]:
        async for frame in frames(out, said, frames_of(said, model), _frame(_error("overloaded_error", "Overloaded"))):
            yield frame


def counted(body: Json) -> int:
    """Count as this vendor does, which no other would."""
    return 10_000 + len(json.dumps(body))


def whole(said: Say, model: str = "m") -> Json:
    """Return a whole answer."""
    return _whole(said, model)


def frames_of(said: Say, model: str = "m") -> list[bytes]:
    """Return the events of a stream."""
    return [_frame(event) for event in _events(said, model)]


def _error(kind: str, message: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _frame(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _usage(said: Say) -> Json:
    return said.usage if said.usage is not None else {"input_tokens": 11, "output_tokens": 7}


def _blocks(said: Say) -> list[Json]:
    blocks: list[Json] = []
    if said.reasoning:
        blocks.append({"type": "thinking", "thinking": said.reasoning, "signature": said.signature})
    if said.redacted:
        blocks.append({"type": "redacted_thinking", "data": said.redacted})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    for at, call in enumerate(said.calls):
        value = call[1] if not isinstance(call[1], str) else json.loads(call[1] or "{}")
        blocks.append({"type": "tool_use", **id_of(said, at, "toolu"), "name": call[0], "input": value})
    return blocks


def _message(said: Say, model: str) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(said),
    }


def _stop(said: Say) -> str:
    return {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}.get(
        said.finish or "", said.finish or ("tool_use" if said.calls else "end_turn")
    )


def _whole(said: Say, model: str) -> Json:
    return {**_message(said, model), "content": _blocks(said), "stop_reason": _stop(said)}


def _events(said: Say, model: str) -> list[Json]:
    usage = {**_usage(said), "output_tokens": 1}
    found: list[Json] = [
        {"type": "message_start", "message": {**_message(said, model), "usage": usage}},
        {"type": "ping"},
    ]
    index = 0

    def block(start: Json, deltas: list[Json]) -> None:
        nonlocal index
        found.append({"type": "content_block_start", "index": index, "content_block": start})
        found.extend({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        found.append({"type": "content_block_stop", "index": index})
        index += 1

    if said.reasoning:
        deltas: list[Json] = [{"type": "thinking_delta", "thinking": p} for p in cut(said.reasoning, said.piece)]
        block({"type": "thinking", "thinking": ""}, [*deltas, {"type": "signature_delta", "signature": said.signature}])
    if said.redacted:
        block({"type": "redacted_thinking", "data": said.redacted}, [])
    if said.text:
        block({"type": "text", "text": ""}, [{"type": "text_delta", "text": p} for p in cut(said.text, said.piece)])
    for at, call in enumerate(said.calls):
        start = {"type": "tool_use", **id_of(said, at, "toolu"), "name": call[0], "input": {}}
        pieces = cut(arguments_of(call), said.piece)
        block(start, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces])
    output = {"output_tokens": _usage(said).get("output_tokens", 0)}
    found.append({"type": "message_delta", "delta": {"stop_reason": _stop(said)}, "usage": output})
    found.append({"type": "message_stop"})
    return found


async def _main() -> None:
    vendor = await AnthropicServer(record=False).start(int(sys.argv[1]) if len(sys.argv) > 1 else 9101)
    print(vendor.base_url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
