"""The neutral prompt as a request of Bedrock's Converse, and its answers as neutral parts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from letta.common.v1.message_pb2 import ContentPart, ImageContent, Message
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation, PartEnded, PartStarted, Prompt, ToolChoiceMode
from letta_common.errors import CapabilityMissing, LLMInvalidResponse
from letta_llm_gateway.domain.answers import Completed, Delta, Event, Signed
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.parts import answer_of, call_part, reasoning_part, redacted_part, text_part
from letta_llm_gateway.providers.wires import signatures
from letta_llm_gateway.providers.wires.arguments import finished, new_call_id, text_of
from letta_llm_gateway.providers.wires.bodies import Body, encoded, listed, together
from letta_llm_gateway.providers.wires.strictness import is_strict
from letta_llm_gateway.providers.wires.told import (
    client_returns,
    given_arguments,
    held_image,
    is_models,
    limit_of,
    response_form,
    return_text,
    schema,
    thoughts_of,
)
from letta_llm_gateway.providers.wires.turns import Turns, TurnsRecipe, joined
from letta_llm_gateway.providers.wires.wire_json import count, rows, table, words

Json = dict[str, Any]
_VENDOR = "bedrock"
_CLAUDE, _NOVA = "anthropic.claude", "amazon.nova"
_CACHE_POINT: Json = {"cachePoint": {"type": "default"}}
_IMAGES = frozenset({"png", "jpeg", "gif", "webp"})
_FINISH = {
    "end_turn": FinishReason.FINISH_REASON_STOP,
    "stop_sequence": FinishReason.FINISH_REASON_STOP,
    "tool_use": FinishReason.FINISH_REASON_TOOL_CALLS,
    "max_tokens": FinishReason.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": FinishReason.FINISH_REASON_LENGTH,
    "guardrail_intervened": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": FinishReason.FINISH_REASON_CONTENT_FILTER,
}
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})


def request(model: str, prompt: Prompt, fragments: Fragments, *, max_tokens: int | None = None) -> Body:
    """Build the body of Converse. Models that cache get a mark after tools and system and after the history."""
    settings, form = prompt.settings, response_form(prompt)
    checks.check(prompt, form, checks.BEDROCK)
    caches = _CLAUDE in model or _NOVA in model
    call: Json = {}
    if prompt.system:
        call["system"] = [{"text": prompt.system}, *([_CACHE_POINT] if caches else [])]
    limits: Json = {}
    if limit := limit_of(settings, max_tokens):
        limits["maxTokens"] = limit
    if thoughts := thoughts_of(settings) if _CLAUDE in model else None:
        told, least = thoughts
        limits["maxTokens"] = max(limit or 0, least)
        call["additionalModelRequestFields"] = {"thinking": told}
    elif settings.HasField("temperature"):  # thinking allows the default alone
        limits["temperature"] = min(1.0, settings.temperature)
    if limits:
        call["inferenceConfig"] = limits
    if output := _output(prompt, form):
        call["outputConfig"] = output
    if (tools := _tools(prompt)) and prompt.tool_choice.mode != ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
        call["toolConfig"] = {"tools": tools, **_choice(prompt, forced=not thoughts)}
    elif tools or (mentioned := fragments.of(_NAMES, prompt.messages)):
        # calls in the history are refused without the declarations
        call["toolConfig"] = {"tools": tools or [_unnamed(name) for name in mentioned]}
    return Body(call, "messages", _messages(prompt, fragments, caches=caches))


def _output(prompt: Prompt, form: Json) -> Json:
    settings = prompt.settings
    output: Json = {"effort": settings.effort} if settings.HasField("effort") else {}
    if form.get("type") == "json_schema":
        wanted = form["json_schema"]
        told = {"schema": json.dumps(wanted["schema"]), "name": wanted.get("name") or "answer"}
        output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": told}}
    return output


def _tools(prompt: Prompt) -> list[Json]:
    tools: list[Json] = []
    for tool in prompt.tools:
        parameters = schema(tool)
        spec: Json = {"name": tool.name, "inputSchema": {"json": parameters}}
        if tool.description:
            spec["description"] = tool.description
        if is_strict(tool, prompt.settings, parameters):
            spec["strict"] = True
        tools.append({"toolSpec": spec})
    return tools


def _choice(prompt: Prompt, *, forced: bool) -> Json:
    mode = prompt.tool_choice.mode
    if forced and mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL:
        return {"toolChoice": {"tool": {"name": prompt.tool_choice.name}}}
    if forced and mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED:
        return {"toolChoice": {"any": {}}}
    return {"toolChoice": {"auto": {}}}


class _CalledNamesRecipe:
    """The names of the tools that were called, each once, in order."""

    def made(self, message: Message) -> dict[str, None]:
        return {part.tool_call.name: None for part in message.parts if part.HasField("tool_call")}

    def joined(self, parts: Sequence[dict[str, None]]) -> dict[str, None]:
        return {name: None for part in parts for name in part}

    def size(self, made: dict[str, None]) -> int:
        return 100 * (1 + len(made))


_NAMES = _CalledNamesRecipe()


def _unnamed(name: str) -> Json:
    return {"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object", "properties": {}}}}}


@dataclass(frozen=True, slots=True)
class _ConverseTurn:
    """A turn, its blocks written as JSON: results come before other content, reasoning before what follows from it."""

    role: str
    before: bytes = b""
    others: bytes = b""

    def takes(self, other: _ConverseTurn) -> bool:
        """Say whether both are of one speaker: neighbours of one role are one message."""
        return self.role == other.role

    def with_all(self, others: Sequence[_ConverseTurn]) -> _ConverseTurn:
        """Return this turn and others of its speaker as one."""
        all_ = (self, *others)
        return _ConverseTurn(
            self.role, together(*(each.before for each in all_)), together(*(each.others for each in all_))
        )

    def encoded(self) -> bytes:
        """Write the turn as JSON."""
        return b'{"role":"%s","content":[%s]}' % (self.role.encode(), together(self.before, self.others))


def _messages(prompt: Prompt, fragments: Fragments, *, caches: bool) -> bytes:
    """Return messages in turns: neighbours of one role are one message, and the user begins."""
    turns = fragments.of(_FORM, prompt.messages)
    if turns.first is None or turns.first.role == "assistant":
        turns = joined([Turns(_NOBODY), turns])
    if caches and (turns.last or turns.first or _NOBODY).role == "user":
        turns = joined([turns, Turns(_ConverseTurn("user", others=encoded(_CACHE_POINT)))])
    return turns.encoded()


def _turns(message: Message) -> Iterator[_ConverseTurn]:
    blocks = list(_blocks(message))
    if blocks:
        before = [block for block in blocks if "toolResult" in block or "reasoningContent" in block]
        others = [block for block in blocks if "toolResult" not in block and "reasoningContent" not in block]
        yield _ConverseTurn("assistant" if is_models(message) else "user", listed(before), listed(others))


_FORM = TurnsRecipe(_turns)
_NOBODY = _ConverseTurn("user", others=b'{"text":"..."}')
"""What a user says where the assistant would begin."""


def _blocks(message: Message) -> Iterator[Json]:
    for returned in client_returns(message):
        yield _result(returned.tool_call_id, return_text(returned), failed=returned.status == 2)
    yield from filter(None, map(_block, message.parts))


def _block(part: ContentPart) -> Json | None:  # noqa: PLR0911 one line for each kind
    match part.WhichOneof("part"):
        case "text" if part.text.text.strip():  # the vendor refuses blank text
            return {"text": part.text.text}
        case "image":
            return _image(part.image)
        case "tool_call":
            call = part.tool_call
            return {"toolUse": {"toolUseId": call.id, "name": call.name, "input": given_arguments(call.input)}}
        case "tool_return":
            returned = part.tool_return
            return _result(returned.tool_call_id, returned.content, failed=returned.is_error)
        case "reasoning":
            return _thought(part.reasoning.reasoning, part.reasoning.signature)
        case "redacted_reasoning":
            held = signatures.opened(_VENDOR, part.redacted_reasoning.data)
            return {"reasoningContent": {"redactedContent": held}} if held else None
    return None


def _thought(text: str, signature: str) -> Json | None:
    """Return reasoning as it came; what another vendor signed, or nobody, is left out."""
    held = signatures.opened(_VENDOR, signature)
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": held}}} if held else None


def _result(call_id: str, content: str, *, failed: bool) -> Json:
    result: Json = {"toolUseId": call_id, "content": [{"text": content or " "}]}
    return {"toolResult": {**result, "status": "error"} if failed else result}


def _image(image: ImageContent) -> Json | None:
    if image.source.HasField("url"):
        raise CapabilityMissing("Bedrock takes no addresses of images; send the image itself, in base64")
    media_type, data = held_image(image)
    if not data:
        return None
    form = media_type.rpartition("/")[2].replace("jpg", "jpeg")
    if form not in _IMAGES:
        raise CapabilityMissing(f"Bedrock sees no images of type {media_type}; use one of {sorted(_IMAGES)}")
    return {"image": {"format": form, "source": {"bytes": base64.b64encode(data).decode()}}}


def answer(body: Any, *, vendor: str, response_id: str = "") -> Generation:
    """Read an answer. Raises LLMInvalidResponse when it has no content or cannot be read."""
    body = table(body)
    content = table(table(body.get("output")).get("message")).get("content")
    if not isinstance(content, list):
        raise LLMInvalidResponse(f"{vendor} answered without content", provider=vendor)
    parts = [part for block in rows(content) if (part := _part(block, vendor))]
    calls = any(part.HasField("tool_call") for part in parts)
    finish = _finish(body.get("stopReason"), calls=calls, vendor=vendor)
    return finished(answer_of(finish, usage(body.get("usage")), response_id, parts), objects=True)


def _part(block: Json, vendor: str) -> ContentPart | None:
    if "text" in block:
        return text_part(words(block["text"]))
    if call := block.get("toolUse"):
        return _called(table(call), vendor, text_of(table(call).get("input")))
    if thought := table(block.get("reasoningContent")):
        if redacted := words(thought.get("redactedContent")):
            return redacted_part(signatures.sealed(_VENDOR, redacted))
        told = table(thought.get("reasoningText"))
        signature = words(told.get("signature"))
        return reasoning_part(words(told.get("text")), signatures.sealed(_VENDOR, signature) if signature else None)
    return None


def _called(call: Json, vendor: str, arguments: str = "") -> ContentPart:
    if not (name := words(call.get("name"))):
        raise LLMInvalidResponse(f"{vendor} called a tool without naming it", provider=vendor)
    return call_part(new_call_id(), name, arguments)


def _finish(reason: Any, *, calls: bool, vendor: str) -> FinishReason.ValueType:
    if reason in _MALFORMED:
        raise LLMInvalidResponse(f"{vendor} could not finish: {reason}", provider=vendor)
    found = _FINISH.get(reason) if isinstance(reason, str) else None
    if found in {None, FinishReason.FINISH_REASON_STOP}:
        return FinishReason.FINISH_REASON_TOOL_CALLS if calls else FinishReason.FINISH_REASON_STOP
    return found or FinishReason.FINISH_REASON_STOP


def usage(counts: Any) -> TokenUsage | None:
    """Read the counts of tokens; the vendor counts cached ones apart, the contract counts them in."""
    counts = table(counts)
    read, written = count(counts.get("cacheReadInputTokens")), count(counts.get("cacheWriteInputTokens"))
    prompt = count(counts.get("inputTokens")) + read + written
    if not prompt:
        return None
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=count(counts.get("outputTokens")),
        cached_input_tokens=read,
        cache_write_tokens=written,
    )


class StreamReader:
    """Reads the events of a stream; only blocks of calls are announced, the others begin with their first piece."""

    def __init__(self, *, vendor: str, response_id: str = "") -> None:
        self._vendor, self._id = vendor, response_id
        self._open: dict[int, int] = {}  # the vendor's index of a block -> ours
        self._next = 0
        self._calls = False
        self._stop: Any = None
        self._usage: TokenUsage | None = None

    def feed(self, kind: str, body: Any) -> Iterator[Event]:
        """Yield what an event says."""
        if not isinstance(body, dict):
            raise LLMInvalidResponse(f"{self._vendor} streamed something that is no JSON object", provider=self._vendor)
        given = body.get("contentBlockIndex")
        at = given if isinstance(given, int) else 0
        match kind:
            case "contentBlockDelta":
                yield from self._delta(at, table(body.get("delta")))
            case "contentBlockStart":
                yield from self._start(at, table(body.get("start")))
            case "contentBlockStop":
                index = self._open.pop(at, None)
                if index is not None:
                    yield PartEnded(index=index)
            case "messageStop":
                self._stop = body.get("stopReason") or "end_turn"
            case "metadata":
                self._usage = usage(body.get("usage")) or self._usage

    def end(self) -> Iterator[Event]:
        """Yield the end. Raises LLMInvalidResponse when the stream was cut before the model stopped."""
        for index in sorted(self._open.values()):
            yield PartEnded(index=index)
        if self._stop is None:
            raise LLMInvalidResponse(f"{self._vendor} ended the stream before the model stopped", provider=self._vendor)
        finish = _finish(self._stop, calls=self._calls, vendor=self._vendor)
        yield Completed(answer_of(finish, self._usage, self._id), objects=True)

    def _begin(self, at: int, part: ContentPart) -> Iterator[Event]:
        self._open[at] = self._next
        yield PartStarted(index=self._next, part=part)
        self._next += 1

    def _start(self, at: int, start: Json) -> Iterator[Event]:
        if call := start.get("toolUse"):
            self._calls = True
            yield from self._begin(at, _called(table(call), self._vendor))

    def _delta(self, at: int, delta: Json) -> Iterator[Event]:
        thought = table(delta.get("reasoningContent"))
        if redacted := words(thought.get("redactedContent")):
            yield from self._begin(at, redacted_part(signatures.sealed(_VENDOR, redacted)))
        elif "text" in delta or "text" in thought or "signature" in thought:
            if at not in self._open:
                yield from self._begin(at, text_part() if "text" in delta else reasoning_part())
            if piece := words(delta.get("text")) or words(thought.get("text")):
                yield Delta(self._open[at], piece)
            if signature := words(thought.get("signature")):
                yield Signed(self._open[at], signatures.sealed(_VENDOR, signature))
        elif at in self._open and (given := table(delta.get("toolUse")).get("input")):
            yield Delta(self._open[at], text_of(given))
