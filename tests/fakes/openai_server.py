"""A fake of OpenAI's chats, responses, embeddings and models: `async with OpenAIServer() as vendor: vendor.base_url`.

`python -m tests.fakes.openai_server --port 9100` serves it alone, without delay, for benchmarks.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from tests.fakes import openai_responses
from tests.fakes.wire import Fault, Json, Reply, Request, Say, Vendor, arguments_of, cut, frames, id_of

_DEPLOYMENT = re.compile(r"^/openai(/deployments/[^/]+)?")  # Azure's paths
_NOW = 1_790_000_000


class OpenAIServer(Vendor):
    """Speaks the wire of OpenAI. `prefix` is the path before `/chat/completions`."""

    def __init__(self, *, prefix: str = "/v1", record: bool = True) -> None:
        super().__init__(record=record)
        self._prefix = prefix
        self.models = [{"id": name, "object": "model"} for name in ("gpt-4o-mini", "gpt-4.1", "text-embedding-3-small")]
        self.dimensions = 8

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        return self.url + self._prefix

    def last_said(self, body: Json) -> tuple[str, str]:
        """Return role and text of the newest message."""
        if "input" in body:
            return openai_responses.last_said(body)
        message = body["messages"][-1]
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        return message["role"], content

    async def handle(self, request: Request, out: Reply) -> None:
        """Answer one request."""
        path = _DEPLOYMENT.sub("", request.path.partition("?")[0].removeprefix(self._prefix))
        if self.keys and request.headers.get("authorization", "").removeprefix("Bearer ") not in self.keys:
            await out.json(_error("Incorrect API key provided: sk-secret1234", "invalid_api_key"), 401)
        elif path == "/models":
            await out.json({"object": "list", "data": self.models})
        elif path == "/embeddings":
            await self._embed(request.body, out)
        elif path in {"/chat/completions", "/responses"}:
            await self._complete(request.body, out, responses=path == "/responses")
        elif path == "/api/tags":
            await out.json({"models": [{"name": model["id"]} for model in self.models]})
        else:
            await out.json(_error(f"Invalid URL ({request.method} {request.path})", "not_found"), 404)

    async def _embed(self, body: Json, out: Reply) -> None:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        step = self.script.popleft() if self.script else None
        if isinstance(step, Fault):
            await out.fail(step, _error("failed", "server_error"))
            return
        rows = [{"object": "embedding", "index": at, "embedding": self.vector(text)} for at, text in enumerate(texts)]
        await out.json({"object": "list", "data": rows, "model": body["model"], "usage": {"prompt_tokens": 1}})

    def vector(self, text: str) -> list[float]:
        """Return a vector that depends on the text alone; not of unit length, as some servers' are not."""
        digest = hashlib.sha256(text.encode()).digest()
        return [byte / 64 - 2 for byte in digest[: self.dimensions]]

    async def _complete(self, body: Json, out: Reply, *, responses: bool) -> None:
        step = self.next_step(body)
        if isinstance(step, Say) and step.fault and not body.get("stream"):
            step = step.fault
        if isinstance(step, Fault):
            if step.kind == "empty":
                await out.json({"id": "chatcmpl-1", "choices": [], "output": [], "usage": {}})
            else:
                await out.fail(step, _error("The server had an error", "server_error"))
        elif body.get("stream"):
            error = openai_responses.ERROR
            pieces = frames(out, step, openai_responses.frames_of(step, body), error) if responses else None
            await out.stream(pieces or self._frames(step, body, out))
        else:
            await out.json(openai_responses.whole(step, body) if responses else _whole(step, body))

    async def _frames(self, said: Say, body: Json, out: Reply) -> AsyncIterator[bytes]:
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        pieces = [_frame(chunk) for chunk in _chunks(said, body["model"], usage=usage)]
        error = _frame(_error("The server is overloaded", "server_error"))
        async for frame in frames(out, said, pieces, error):
            yield frame
        if said.fault is None:
            yield b"data: [DONE]\n\n"


def whole(said: Say, body: Json) -> Json:
    """Return a whole answer of chat completions."""
    return _whole(said, body)


def frames_of(said: Say, model: str = "m") -> list[bytes]:
    """Return the chunks of a stream of chat completions."""
    return [*(_frame(chunk) for chunk in _chunks(said, model, usage=True)), b"data: [DONE]\n\n"]


def _error(message: str, code: str) -> Json:
    return {"error": {"message": message, "type": code, "param": None, "code": code}}


def _frame(chunk: Json) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _usage(said: Say) -> Json:
    return said.usage if said.usage is not None else {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def _whole(said: Say, body: Json) -> Json:
    message: Json = {"role": "assistant", "content": said.text or None}
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.calls:
        message["tool_calls"] = [
            {
                **id_of(said, at, "call"),
                "type": "function",
                "function": {"name": call[0], "arguments": arguments_of(call)},
            }
            for at, call in enumerate(said.calls)
        ]
    finish = said.finish or ("tool_calls" if said.calls else "stop")
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": _NOW,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _usage(said),
    }


def _chunks(said: Say, model: str, *, usage: bool) -> list[Json]:
    def chunk(delta: Json, finish: str | None = None) -> Json:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": _NOW,
            "model": model,
            "choices": choices,
        }

    found = [chunk({"role": "assistant", "content": ""})]
    found += [chunk({"reasoning_content": piece}) for piece in cut(said.reasoning, said.piece)]
    found += [chunk({"content": piece}) for piece in cut(said.text, said.piece)]
    found += [chunk({"tool_calls": [call]}) for call in _call_deltas(said)]
    found.append(chunk({}, said.finish or ("tool_calls" if said.calls else "stop")))
    if usage:
        found.append({**chunk({}), "choices": [], "usage": _usage(said)})
    return found


def _call_deltas(said: Say) -> list[Json]:
    rows: list[list[Json]] = []
    for at, call in enumerate(said.calls):
        function = {"name": call[0], "arguments": ""}
        first = {"index": at, **id_of(said, at, "call"), "type": "function", "function": function}
        rest = [{"index": at, "function": {"arguments": piece}} for piece in cut(arguments_of(call), said.piece)]
        rows.append([first, *rest])
    if not said.interleaved:
        return [delta for row in rows for delta in row]
    longest = max(map(len, rows), default=0)
    return [row[turn] for turn in range(longest) for row in rows if turn < len(row)]


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A fake of OpenAI on loopback.")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--text", default="", help="answer this instead of echoing")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two streamed pieces")
    options = parser.parse_args()
    vendor = OpenAIServer(record=False)
    if options.text or options.pause:

        def respond(body: Any) -> Say:
            said = vendor.default(body)
            assert isinstance(said, Say)
            return Say(options.text or said.text, said.calls if not options.text else (), pause=options.pause)

        vendor.respond = respond
    await vendor.start(options.port)
    print(vendor.base_url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
