"""A fake of Amazon Bedrock: signed requests in, event streams out, as AWS frames them.

`async with BedrockServer() as vendor:` answers Converse, ConverseStream, CountTokens, InvokeModel, and lists models.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
from collections.abc import AsyncIterator
from urllib.parse import quote, unquote
from zlib import crc32

from tests.fakes.wire import Fault, Json, Reply, Request, Say, Vendor, arguments_of, cut, frames, id_of

KEYS = {"AKIATEST": "secret-of-test"}
_PATH = re.compile(r"^/model/(?P<model>[^/]+)/(?P<verb>converse|converse-stream|count-tokens|invoke)$")
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/([\w-]+)/aws4_request, "
    r"SignedHeaders=([\w;-]+), Signature=(\w+)"
)
_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "content_filtered"}
_ID = {"x-amzn-requestid": "req_1"}


class BedrockServer(Vendor):
    """Speaks the wire of Bedrock, and checks signatures as AWS does when `secrets` is given."""

    def __init__(self, *, record: bool = True) -> None:
        super().__init__(record=record)
        self.models = [{"id": "anthropic.claude-sonnet-4-5-v1:0"}, {"id": "us.amazon.nova-pro-v1:0"}]
        self.secrets: dict[str, str] = {}
        """Access keys and their secrets; empty: any signature passes."""
        self.bearers: set[str] = set()

    def last_said(self, body: Json) -> tuple[str, str]:
        """Return role and text of the newest message; a result of a tool has role `tool`."""
        content = body["messages"][-1]["content"]
        if any("toolResult" in block for block in content):
            return "tool", ""
        return "user", "".join(block.get("text", "") for block in content)

    async def handle(self, request: Request, out: Reply) -> None:
        """Answer one request."""
        path = request.path.partition("?")[0]
        if (self.secrets or self.bearers) and not self._known(request):
            error = "The security token included in the request is invalid."
            await _refuse(out, 403, "UnrecognizedClientException", error)
        elif path in {"/foundation-models", "/inference-profiles"}:
            await out.json(self._listed(path))
        elif match := _PATH.match(path):
            await self._model(unquote(match["model"]), match["verb"], request.body, out)
        else:
            await _refuse(out, 404, "ResourceNotFoundException", path)

    def _known(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        return given.removeprefix("Bearer ") in self.bearers or signed(request, self.secrets)

    def _listed(self, path: str) -> Json:
        names = [model["id"] for model in self.models]
        if path == "/inference-profiles":
            ids = [{"inferenceProfileId": name} for name in names if name.startswith("us.")]
            return {"inferenceProfileSummaries": ids}
        kinds = {"inputModalities": ["TEXT", "IMAGE"], "outputModalities": ["TEXT"]}
        return {"modelSummaries": [{"modelId": name, **kinds} for name in names if not name.startswith("us.")]}

    async def _model(self, model: str, verb: str, body: Json, out: Reply) -> None:
        if verb == "count-tokens":
            await out.json({"inputTokens": 10_000 + len(json.dumps(body["input"]["converse"]))})
            return
        if verb == "invoke":
            texts = body.get("texts") or [body.get("inputText")]
            rows = [[byte / 64 - 2 for byte in hashlib.sha256(text.encode()).digest()[:8]] for text in texts]
            await out.json({"embeddings": rows} if "texts" in body else {"embedding": rows[0]})
            return
        streamed = verb == "converse-stream"
        step = self.next_step(body)
        if isinstance(step, Say) and step.fault and not streamed:
            step = step.fault
        if isinstance(step, Fault):
            await self._fail(step, out)
        elif streamed:
            await out.stream(self._frames(step, out), "application/vnd.amazon.eventstream", _ID)
        else:
            await out.json(whole(step), headers=_ID)

    async def _fail(self, fault: Fault, out: Reply) -> None:
        if fault.kind == "empty":
            await out.json({"metrics": {"latencyMs": 1}})
            return
        if fault.kind == "raw":
            await out.fail(fault, None)
            return
        said = (fault.body or {}).get("error", {}).get("message", "failed")
        await out.fail(
            Fault(fault.kind, fault.status, {"message": said}, {**_ID, **_kind(fault.status), **fault.headers}), None
        )

    async def _frames(self, said: Say, out: Reply) -> AsyncIterator[bytes]:
        pieces = frames_of(said)
        error = frame("serviceUnavailableException", {"message": "The model is overloaded."}, exception=True)
        async for piece in frames(out, said, pieces, error):
            yield piece


def frame(kind: str, body: Json | bytes, *, exception: bool = False) -> bytes:
    """Return an event as AWS frames it: lengths, a checksum of them, headers, the payload, a checksum of all."""
    headers = {
        ":message-type": "exception" if exception else "event",
        ":exception-type" if exception else ":event-type": kind,
        ":content-type": "application/json",
    }
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    payload = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    lengths = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    framed = lengths + struct.pack(">I", crc32(lengths)) + head + payload
    return framed + struct.pack(">I", crc32(framed))


def whole(said: Say) -> Json:
    """Return a whole answer of Converse."""
    message = {"role": "assistant", "content": _blocks(said)}
    return {"output": {"message": message}, "stopReason": _stop(said), "metrics": {"latencyMs": 1}, **_usage(said)}


def frames_of(said: Say) -> list[bytes]:
    """Return the events of a stream."""
    return [frame(kind, body) for kind, body in events_of(said)]


def signed(request: Request, secrets: dict[str, str]) -> bool:
    """Say whether the signature (version 4) of a request was made with the secret of its access key."""
    match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if match is None or match[1] not in secrets:
        return False
    _, day, region, service, names, signature = match.groups()
    path, _, query = request.path.partition("?")
    lines = [
        request.method,
        quote(path, safe="/~"),
        "&".join(sorted(query.split("&"))) if query else "",
        *(f"{name}:{request.headers[name]}" for name in names.split(";")),
        "",
        names,
        hashlib.sha256(request.raw).hexdigest(),
    ]
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    told = f"AWS4-HMAC-SHA256\n{request.headers['x-amz-date']}\n{scope}\n{digest}"
    key = f"AWS4{secrets[match[1]]}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(hmac.digest(key, told.encode(), "sha256").hex(), signature)


def _kind(status: int) -> dict[str, str]:
    kind = {400: "ValidationException", 403: "AccessDeniedException", 404: "ResourceNotFoundException"}.get(status)
    return {"x-amzn-errortype": kind} if kind else {}


async def _refuse(out: Reply, status: int, kind: str, message: str) -> None:
    await out.json({"message": message}, status, {"x-amzn-errortype": kind, **_ID})


def _stop(said: Say) -> str:
    return _STOP.get(said.finish or "", said.finish or ("tool_use" if said.calls else "end_turn"))


def _usage(said: Say) -> Json:
    if said.usage is None:
        return {"usage": {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18}}
    return {"usage": {"inputTokens": said.usage.get("prompt_tokens", 0), **said.usage}} if said.usage else {}


def _blocks(said: Say) -> list[Json]:
    blocks: list[Json] = []
    if said.reasoning:
        blocks.append({"reasoningContent": {"reasoningText": {"text": said.reasoning, "signature": said.signature}}})
    if said.redacted:
        blocks.append({"reasoningContent": {"redactedContent": base64.b64encode(said.redacted.encode()).decode()}})
    if said.text:
        blocks.append({"text": said.text})
    for at, (name, given) in enumerate(said.calls):
        value = given if not isinstance(given, str) else json.loads(given or "{}")
        id = id_of(said, at, "tooluse").get("id")
        blocks.append({"toolUse": {"toolUseId": id, "name": name, "input": value}})
    return blocks


def events_of(said: Say) -> list[tuple[str, Json]]:
    """Return the events of a stream, by kind."""
    rows: list[list[tuple[str, Json]]] = []

    def block(start: Json | None, deltas: list[Json]) -> None:
        at = {"contentBlockIndex": len(rows)}
        begun = [("contentBlockStart", {"start": start, **at})] if start else []
        rows.append([*begun, *(("contentBlockDelta", {"delta": d, **at}) for d in deltas), ("contentBlockStop", at)])

    if said.reasoning:
        pieces: list[Json] = [{"reasoningContent": {"text": piece}} for piece in cut(said.reasoning, said.piece)]
        block(None, [*pieces, {"reasoningContent": {"signature": said.signature}}])
    if said.redacted:
        block(None, [{"reasoningContent": {"redactedContent": base64.b64encode(said.redacted.encode()).decode()}}])
    if said.text:
        block(None, [{"text": piece} for piece in cut(said.text, said.piece)])
    for at, call in enumerate(said.calls):
        start = {"toolUse": {"toolUseId": id_of(said, at, "tooluse").get("id"), "name": call[0]}}
        block(start, [{"toolUse": {"input": piece}} for piece in cut(arguments_of(call), said.piece)])
    events = [event for row in rows for event in row]
    if said.interleaved:
        longest = max(map(len, rows), default=0)
        events = [row[turn] for turn in range(longest) for row in rows if turn < len(row)]
    end = ("metadata", {"metrics": {"latencyMs": 1}, **_usage(said)})
    return [("messageStart", {"role": "assistant"}), *events, ("messageStop", {"stopReason": _stop(said)}), end]
