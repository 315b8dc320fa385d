"""Anthropic's messages, through the official SDK: the provider, its requests and its answers."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import anthropic
import httpx2

from letta.common.v1.message_pb2 import ContentPart, ImageContent
from letta.common.v1.model_settings_pb2 import ModelSettings
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import (
    FinishReason,
    Generation,
    Prompt,
    ToolChoiceMode,
    ToolDefinition,
)
from letta_common.errors import CapabilityMissing, LLMAuthentication, LLMInvalidResponse
from letta_llm_gateway.domain.answers import Call, Completed, Delta, Event, Signed
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Vector
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks, sdks
from letta_llm_gateway.providers.errors import sdk_errors, stream_refusal
from letta_llm_gateway.providers.fitting.reasons import said
from letta_llm_gateway.providers.http import own_headers
from letta_llm_gateway.providers.parts import answer_of, call_part, reasoning_part, redacted_part, text_part
from letta_llm_gateway.providers.wires import signatures, wire_json
from letta_llm_gateway.providers.wires.arguments import finished, new_call_id, text_of
from letta_llm_gateway.providers.wires.blocks import BlockTurn, block_turns
from letta_llm_gateway.providers.wires.bodies import Body, encoded, together
from letta_llm_gateway.providers.wires.reading import OpenParts, cut, finish_of, read_name, read_object, usage_of
from letta_llm_gateway.providers.wires.sse import spoken
from letta_llm_gateway.providers.wires.strictness import is_strict
from letta_llm_gateway.providers.wires.told import (
    ANSWER_TOKENS,
    answer_schema,
    given_arguments,
    held_image,
    limit_of,
    schema,
    thoughts_of,
)
from letta_llm_gateway.providers.wires.turns import Turns
from letta_llm_gateway.providers.wires.wire_json import count, rows, table, words

Json = dict[str, Any]
_USUAL_MAX_TOKENS = 8192
"""The most that an answer may have where the agent sets no limit, which the wire demands.

It is what the 3.5 models allow; later ones allow more, and an agent that wants so much says so.
"""
_CACHED: Json = {"type": "ephemeral"}
# Takes the place of a block's closing brace, so that a block which is written already can still be marked.
_MARK = b',"cache_control":%s}' % encoded(_CACHED)
# The vendor refuses a conversation that the assistant begins.
_NOBODY = b'{"role":"user","content":[{"type":"text","text":"..."}]}'
"""What a user says where the assistant would begin."""
_FINISH = {
    "end_turn": FinishReason.FINISH_REASON_STOP,
    "stop_sequence": FinishReason.FINISH_REASON_STOP,
    # Comes of tools that the vendor itself runs; none of these is ever declared here.
    "pause_turn": FinishReason.FINISH_REASON_STOP,
    "tool_use": FinishReason.FINISH_REASON_TOOL_CALLS,
    "max_tokens": FinishReason.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": FinishReason.FINISH_REASON_LENGTH,
    "refusal": FinishReason.FINISH_REASON_CONTENT_FILTER,
}
OFFICIAL = "https://api.anthropic.com"
_LIST_SECONDS = 10.0
_MESSAGES = "/v1/messages"
_CLOUD_VERSION = "vertex-2023-10-16"
"""The version of the wire that Vertex speaks, which stands in the body there."""
# The address that counts refuses every other key, `max_tokens` among them.
_COUNTED = ("model", "system", "tools", "tool_choice", "thinking")
# The wire holds a model to a schema, but not to JSON of any kind.
RULES = checks.Rules(re.compile(r"[a-zA-Z0-9_-]{1,128}"), forms=frozenset({"text", "json_schema"}))


class AnthropicProvider:
    """Speaks messages with one account."""

    def __init__(
        self,
        account: Account,
        http: httpx2.AsyncClient,
        fragments: Fragments,
        client: anthropic.AsyncAnthropicVertex | None = None,
    ) -> None:
        self._vendor, self._fragments = account.name, fragments
        if client is None and not account.api_key:
            raise LLMAuthentication(f"provider {account.name} has no key; set its api_key", provider=account.name)
        keys = {"x-api-key": account.api_key, "authorization": f"Bearer {account.api_key}"}
        self._cloud = client
        self._client: Any = client or anthropic.AsyncAnthropic(
            api_key=account.api_key,
            base_url=account.base_url or OFFICIAL,
            max_retries=0,  # the gateway retries, so that deadlines and breakers see every attempt
            timeout=http.timeout,
            http_client=http,
            default_headers=own_headers(account, keys, anthropic.Omit()),
        )

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        path, data = await self._request(call)
        with self._errors(call.model, call.prompt.tools):
            said = wire_json.read(await sdks.ask(self._client, path, data), self._vendor)
            return answer(said, vendor=self._vendor)

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        path, data = await self._request(call, stream=True)
        reader = StreamReader(vendor=self._vendor, model=call.model)
        with self._errors(call.model, call.prompt.tools):
            async with sdks.listen(self._client, path, data) as chunks:
                async for event in spoken(chunks, reader, vendor=self._vendor):
                    yield event

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:  # noqa: ARG002
        """Refuse: the vendor has no embedder."""
        raise CapabilityMissing(
            f"{self._vendor} embeds no texts; choose another embedding model", provider=self._vendor
        )

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt as the vendor counts them."""
        body = await request(call.model, call.prompt, self._fragments, max_tokens=call.max_output_tokens)
        data = body.only(_COUNTED).encoded()
        with self._errors(call.model, call.prompt.tools):
            counted = await sdks.ask(self._client, f"{_MESSAGES}/count_tokens", data)
        found = wire_json.read(counted, self._vendor).get("input_tokens")
        return int(found) if found else None

    async def models(self) -> list[ListedModel]:
        """List what the vendor offers."""
        with self._errors(""):
            # 1,000 is the largest page; the vendor's usual one has 20 rows.
            response = await self._client.models.with_raw_response.list(limit=1000, timeout=_LIST_SECONDS)
        body = wire_json.read(response.http_response.content, self._vendor)
        rows = body.get("data") if isinstance(body, dict) else None
        return [ListedModel(str(row["id"])) for row in rows or () if isinstance(row, dict) and row.get("id")]

    def rules(self, model: str) -> checks.Rules:  # noqa: ARG002
        """Return what the vendor's reference says of requests."""
        return RULES

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    async def _request(self, call: Call, **more: bool) -> tuple[str, bytes]:
        """Return path and body of a request; Vertex names the model in the path."""
        body = await request(call.model, call.prompt, self._fragments, max_tokens=call.max_output_tokens)
        if self._cloud is None:
            return _MESSAGES, body.encoded(**more)
        place = f"/projects/{self._cloud.project_id}/locations/{self._cloud.region}/publishers/anthropic/models"
        verb = "streamRawPredict" if more.get("stream") else "rawPredict"
        del body.head["model"]
        return f"{place}/{quote(call.model, safe='')}:{verb}", body.encoded(anthropic_version=_CLOUD_VERSION, **more)

    def _errors(self, model: str, tools: Sequence[Any] = ()) -> AbstractContextManager[None]:
        """Turn what the SDK raises into the errors of the contract."""
        return sdk_errors(anthropic, anthropic.AnthropicError, self._vendor, model, tools)


def make(account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> AnthropicProvider:
    """Make the provider of an account."""
    return AnthropicProvider(account, http, fragments)


async def request(model: str, prompt: Prompt, fragments: Fragments, *, max_tokens: int | None = None) -> Body:
    """Build the body. The stable beginning (tools, system) is marked for the vendor's cache, and so is the history."""
    settings = prompt.settings
    checks.check(prompt, RULES)
    limit = limit_of(settings, min(max_tokens or ANSWER_TOKENS, _USUAL_MAX_TOKENS))
    body: Json = {"model": model, "max_tokens": limit}
    if prompt.system:
        body["system"] = [{"type": "text", "text": prompt.system, "cache_control": _CACHED}]
    if thoughts := thoughts_of(settings):
        body["thinking"], least = thoughts
        body["max_tokens"] = max(limit, least)
    elif settings.HasField("temperature"):  # thinking allows the default alone
        # Anthropic's scale ends at 1, where those of other vendors end at 2.
        body["temperature"] = min(1.0, settings.temperature)
    output: Json = {"effort": settings.effort} if settings.HasField("effort") else {}
    if (wanted := answer_schema(prompt)) is not None:
        output["format"] = {"type": "json_schema", "schema": wanted}
    if output:
        body["output_config"] = output
    if prompt.tools:
        body["tools"] = [_tool(tool, settings) for tool in prompt.tools]
        if not prompt.system:  # which would be marked, and stands after the tools
            body["tools"][-1]["cache_control"] = _CACHED
        # Together with thinking the vendor refuses to have a call forced.
        body["tool_choice"] = _choice(prompt, forced=not thoughts)
    return Body(body, "messages", await _messages(prompt, fragments))


def _tool(tool: ToolDefinition, settings: ModelSettings) -> Json:
    told: Json = {"name": tool.name, "description": tool.description, "input_schema": schema(tool)}
    return {**told, "strict": True} if is_strict(tool, settings, told["input_schema"]) else told


def _choice(prompt: Prompt, *, forced: bool) -> Json:
    mode = prompt.tool_choice.mode
    if mode == ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
        return {"type": "none"}
    one_at_a_time: Json = {} if prompt.settings.parallel_tool_calls else {"disable_parallel_tool_use": True}
    if forced and mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL:
        return {"type": "tool", "name": prompt.tool_choice.name, **one_at_a_time}
    if forced and mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED:
        return {"type": "any", **one_at_a_time}
    return {"type": "auto", **one_at_a_time}


async def _messages(prompt: Prompt, fragments: Fragments) -> bytes:
    """Return messages in turns: neighbours of one role are one message, and the user begins."""
    turns = await fragments.of(_FORM, prompt.messages)
    if turns.first is None:
        return b""
    begins = turns.first.role == "assistant"
    marked = Turns(_marked(turns.first)) if turns.last is None else replace(turns, last=_marked(turns.last))
    return together(_NOBODY if begins else b"", marked.encoded())


def _marked(turn: BlockTurn) -> BlockTurn:
    """Mark the history up to here for the vendor's cache, at its last block; a thought cannot be marked."""
    if turn.others:
        return replace(turn, others=turn.others[:-1] + _MARK)
    ends_with_results = turn.results and (turn.role == "assistant" or not turn.thoughts)
    return replace(turn, results=turn.results[:-1] + _MARK) if ends_with_results else turn


def _block(part: ContentPart) -> Json | None:
    match part.WhichOneof("part"):
        case "text" if part.text.text.strip():  # the vendor refuses blank text
            return {"type": "text", "text": part.text.text}
        case "image":
            return _image(part.image)
        case "tool_call":
            call = part.tool_call
            return {"type": "tool_use", "id": call.id, "name": call.name, "input": given_arguments(call.input)}
        case "reasoning" if _ours(part.reasoning.signature):  # what others signed, or nobody, is refused
            return {"type": "thinking", "thinking": part.reasoning.reasoning, "signature": part.reasoning.signature}
        case "redacted_reasoning" if _ours(part.redacted_reasoning.data):
            return {"type": "redacted_thinking", "data": part.redacted_reasoning.data}
    return None


def _ours(signature: str) -> bool:
    return bool(signature) and not signatures.foreign(signature)


def _result(call_id: str, content: str, *, failed: bool) -> Json:
    block: Json = {"type": "tool_result", "tool_use_id": call_id, "content": content}
    return {**block, "is_error": True} if failed else block


def _image(image: ImageContent) -> Json | None:
    if image.source.HasField("url"):
        return {"type": "image", "source": {"type": "url", "url": image.source.url.url}}
    form, data = held_image(image)
    if not data:
        return None
    return {"type": "image", "source": {"type": "base64", "media_type": form, "data": base64.b64encode(data).decode()}}


_FORM = block_turns(_block, _result)


def answer(body: Any, *, vendor: str) -> Generation:
    """Read an answer. Raises LLMInvalidResponse when it has no content or cannot be read."""
    body = read_object(body, vendor)
    if body.get("type") == "error":
        raise stream_refusal(vendor, body.get("error"), model=str(body.get("model", "")))
    content = body.get("content")
    if not isinstance(content, list):
        raise LLMInvalidResponse(f"{vendor} answered without content", provider=vendor)
    parts = [part for block in rows(content) if (part := _part(block, vendor))]
    finish = finish_of(body.get("stop_reason"), _FINISH, calls=any(part.HasField("tool_call") for part in parts))
    why = said(body.get("stop_details"))
    made = answer_of(finish, usage(body.get("usage")), words(body.get("id")), parts, why)
    return finished(made, objects=True)


def _part(block: Json, vendor: str) -> ContentPart | None:
    match block.get("type"):
        case "text":
            return text_part(words(block.get("text")))
        case "thinking":
            return reasoning_part(words(block.get("thinking")), words(block.get("signature")) or None)
        case "redacted_thinking":
            return redacted_part(words(block.get("data")))
        case "tool_use":
            return call_part(new_call_id(), read_name(block, vendor), text_of(block.get("input")))
    return None


def usage(counts: Any) -> TokenUsage | None:
    """Read the counts of tokens; the vendor counts cached ones apart, the contract counts them in."""
    counts = table(counts)
    return usage_of(
        count(counts.get("input_tokens")),
        count(counts.get("output_tokens")),
        read=count(counts.get("cache_read_input_tokens")),
        written=count(counts.get("cache_creation_input_tokens")),
    )


class StreamReader:
    """Reads the events of a stream."""

    def __init__(self, *, vendor: str, model: str) -> None:
        self._vendor, self._model = vendor, model
        self._parts = OpenParts()
        self._usage: Json = {}
        self._stop: Any = None
        self._why = ""
        self._stopped = False
        self._id = ""

    def feed(self, event: Any) -> Iterator[Event]:
        """Yield what an event says. Raises the error that the vendor put into the stream."""
        event = read_object(event, self._vendor)
        match event.get("type"):
            case "content_block_delta":
                yield from self._delta(_place(event), table(event.get("delta")))
            case "content_block_start":
                yield from self._start(_place(event), table(event.get("content_block")))
            case "content_block_stop":
                yield from self._parts.end(_place(event))
            case "message_start":
                message = table(event.get("message"))
                self._id = words(message.get("id"))
                self._usage.update(_counts(message.get("usage")))
            case "message_delta":
                delta = table(event.get("delta"))
                self._stop, self._why = delta.get("stop_reason"), said(delta.get("stop_details"))
                self._usage.update(_counts(event.get("usage")))
            case "message_stop":
                self._stopped = True
            case "error":
                raise stream_refusal(self._vendor, event.get("error"), model=self._model)

    def end(self) -> Iterator[Event]:
        """Yield the end. Raises LLMInvalidResponse when the stream was cut before the model stopped."""
        yield from self._parts.end_all()
        if not self._stopped and self._stop is None:
            raise cut(self._vendor)
        finish = finish_of(self._stop, _FINISH, calls=self._parts.calls)
        yield Completed(answer_of(finish, usage(self._usage), self._id, why=self._why), objects=True)

    def _start(self, at: int, block: Json) -> Iterator[Event]:
        yield from self._parts.end(at)  # an index that is used again
        called = block.get("type") == "tool_use"
        # What a call is given comes in pieces, and with some servers already here.
        part = call_part(new_call_id(), read_name(block, self._vendor)) if called else _part(block, self._vendor)
        if part is None:
            return
        yield from self._parts.begin(at, part)
        if called and (given := block.get("input")):
            yield Delta(self._parts[at], text_of(given))

    def _delta(self, at: int, delta: Json) -> Iterator[Event]:
        if at not in self._parts:
            return
        index = self._parts[at]
        match delta.get("type"):
            case "text_delta":
                yield Delta(index, words(delta.get("text")))
            case "thinking_delta":
                yield Delta(index, words(delta.get("thinking")))
            case "input_json_delta":
                yield Delta(index, words(delta.get("partial_json")))
            case "signature_delta":
                yield Signed(index, words(delta.get("signature")))


def _place(event: Json) -> int:
    at = event.get("index")
    return at if isinstance(at, int) else 0


def _counts(counts: Any) -> Json:
    return {key: value for key, value in counts.items() if value} if isinstance(counts, dict) else {}
