"""A fake of Google's generateContent and models: `async with GoogleServer() as vendor: vendor.base_url`."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator

from tests.fakes.wire import Fault, Json, Reply, Request, Say, Vendor, cut, frames

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY", "tool_calls": "STOP"}


class GoogleServer(Vendor):
    """Speaks the wire of Google."""

    def __init__(self, *, record: bool = True) -> None:
        super().__init__(record=record)
        self.models = [{"id": name} for name in ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001")]

    def last_said(self, body: Json) -> tuple[str, str]:
        """Return role and text of the newest content; a result of a tool has role `tool`."""
        parts = body["contents"][-1]["parts"]
        if any("functionResponse" in part for part in parts):
            return "tool", ""
        return "user", "".join(part.get("text", "") for part in parts)

    async def handle(self, request: Request, out: Reply) -> None:
        """Answer one request."""
        path, _, verb = request.path.partition("?")[0].partition(":")
        if self.keys and request.headers.get("x-goog-api-key") not in self.keys:
            await out.json(_error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), 400)
        elif path == "/v1beta/models":
            await out.json({"models": [_listed(model["id"]) for model in self.models]})
        elif verb in {"generateContent", "streamGenerateContent"}:
            await self._generate(request.body, out, streamed=verb.startswith("stream"))
        elif verb == "countTokens":
            await out.json({"totalTokens": 10_000 + len(json.dumps(request.body))})
        elif verb == "batchEmbedContents":
            await out.json({"embeddings": [{"values": _vector(row)} for row in request.body["requests"]]})
        else:
            await out.json(_error(404, "NOT_FOUND", path), 404)

    async def _generate(self, body: Json, out: Reply, *, streamed: bool) -> None:
        step = self.next_step(body)
        if isinstance(step, Say) and step.fault and not streamed:
            step = step.fault
        if isinstance(step, Fault):
            if step.kind == "empty":
                await out.json({"responseId": "goog_1"})
            else:
                await out.fail(step, _error(step.status, "UNAVAILABLE", "failed"))
        elif streamed:
            await out.stream(self._frames(step, out))
        else:
            await out.json(whole(step))

    async def _frames(self, said: Say, out: Reply) -> AsyncIterator[bytes]:
        async for frame in frames(
            out, said, frames_of(said), _frame(_error(503, "UNAVAILABLE", "The model is overloaded."))
        ):
            yield frame


def whole(said: Say) -> Json:
    """Return a whole answer."""
    return _chunk(_parts(said, 1 << 20), _finish(said), _usage(said))


def frames_of(said: Say) -> list[bytes]:
    """Return the chunks of a stream."""
    chunks = [*(_chunk([part]) for part in _parts(said, said.piece)), _chunk([], _finish(said), _usage(said))]
    return [_frame(chunk) for chunk in chunks]


def _error(code: int, status: str, message: str) -> Json:
    return {"error": {"code": code, "message": message, "status": status}}


def _frame(chunk: Json) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n"


def _listed(name: str) -> Json:
    actions = ["embedContent"] if "embedding" in name else ["generateContent", "countTokens"]
    return {"name": f"models/{name}", "supportedGenerationMethods": actions, "inputTokenLimit": 1_048_576}


def _vector(row: Json) -> list[float]:
    text = "".join(part.get("text", "") for part in row["content"]["parts"])
    return [byte / 64 - 2 for byte in hashlib.sha256(text.encode()).digest()[:8]]


def _parts(said: Say, size: int) -> list[Json]:
    found: list[Json] = [{"text": piece, "thought": True} for piece in cut(said.reasoning, size)]
    found += [{"text": piece} for piece in cut(said.text, size)]
    for name, given in said.calls:
        value = given if not isinstance(given, str) else json.loads(given or "{}")
        part: Json = {"functionCall": {"name": name, "args": value}}
        if said.signature:
            part["thoughtSignature"] = base64.b64encode(said.signature.encode()).decode()
        found.append(part)
    return found


def _finish(said: Say) -> str:
    return _FINISH.get(said.finish or "stop", (said.finish or "").upper())


def _usage(said: Say) -> Json:
    if said.usage is None:
        return {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18}
    return {"promptTokenCount": said.usage.get("prompt_tokens", 0)} if said.usage else {}


def _chunk(parts: list[Json], finish: str | None = None, usage: Json | None = None) -> Json:
    candidate: Json = {"index": 0, "content": {"role": "model", "parts": parts}}
    if finish:
        candidate["finishReason"] = finish
    chunk: Json = {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "goog_1"}
    return {**chunk, "usageMetadata": usage} if usage else chunk
