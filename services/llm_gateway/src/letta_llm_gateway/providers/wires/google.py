"""The neutral prompt as a request of Google's generateContent, and its answers as neutral parts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from letta.common.v1.message_pb2 import ContentPart, ImageContent, Message, MessageRole
from letta.llm.v1.generation_service_pb2 import Prompt, ToolChoiceMode
from letta_common.errors import LLMInvalidResponse
from letta_llm_gateway.domain.answers import (
    Answer,
    Completed,
    Delta,
    Ended,
    Event,
    FinishReason,
    Part,
    Reasoning,
    Signed,
    Started,
    Text,
    ToolCall,
    Usage,
)
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.errors import stream_refusal
from letta_llm_gateway.providers.fitting.reasons import said
from letta_llm_gateway.providers.wires import signatures
from letta_llm_gateway.providers.wires.arguments import finished, new_call_id, text_of
from letta_llm_gateway.providers.wires.openai import (
    given_arguments,
    parsed,
    response_form,
    return_text,
    schema,
    turn_of,
)
from letta_llm_gateway.providers.wires.wire_json import count, rows, table, words

Json = dict[str, Any]
_VENDOR = "google"
_FINISH = {
    "MAX_TOKENS": FinishReason.LENGTH,
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR"),
        FinishReason.CONTENT_FILTER,
    ),
}
_WORDS_OF_STOPS = ("finishReason", "finishMessage", "blockReason", "blockReasonMessage")
_MODE = {
    ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED: "ANY",
    ToolChoiceMode.TOOL_CHOICE_MODE_NONE: "NONE",
    ToolChoiceMode.TOOL_CHOICE_MODE_TOOL: "ANY",
}


def request(prompt: Prompt, *, max_tokens: int | None = None) -> tuple[list[Json], Json]:
    """Return contents and config as the SDK takes them."""
    settings, form = prompt.settings, response_form(prompt)
    checks.check(prompt, form, checks.GOOGLE)
    config: Json = {"automatic_function_calling": {"disable": True}, "automatic_continuation": False}
    if prompt.system:
        config["system_instruction"] = prompt.system
    if limit := settings.max_output_tokens if settings.HasField("max_output_tokens") else max_tokens:
        config["max_output_tokens"] = limit
    if settings.HasField("temperature"):
        config["temperature"] = settings.temperature
    if settings.thinking_config:
        config["thinking_config"] = parsed(settings.thinking_config)
    if form.get("type") in {"json_object", "json_schema"}:
        config["response_mime_type"] = "application/json"
        if wanted := form.get("json_schema", {}).get("schema"):
            config["response_json_schema"] = wanted
    if prompt.tools:
        config["tools"] = [{"function_declarations": [_tool(tool) for tool in prompt.tools]}]
        config["tool_config"] = {"function_calling_config": _choice(prompt)}
    return _contents(prompt), config


def _tool(tool: Any) -> Json:
    declared: Json = {"name": tool.name, "description": tool.description}
    shape = schema(tool)
    return {**declared, "parameters_json_schema": shape} if shape.get("properties") else declared


def _choice(prompt: Prompt) -> Json:
    choice = prompt.tool_choice
    chosen: Json = {"mode": _MODE.get(choice.mode, "AUTO")}
    if choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL:
        chosen["allowed_function_names"] = [choice.name]
    return chosen


def _contents(prompt: Prompt) -> list[Json]:
    """Return the conversation in turns: neighbours of one role are one content, and the user begins."""
    names: dict[str, str] = {}  # a result names its tool, not its call alone
    turns: list[Json] = []
    turn = turn_of(prompt)
    for place, message in enumerate(prompt.messages):
        role = _role(message)
        told = (_part(part, names, signed=place > turn) for part in message.parts)
        parts = [*_returns(message, names), *filter(None, told)]
        if parts and turns and turns[-1]["role"] == role:
            turns[-1]["parts"].extend(parts)
        elif parts:
            turns.append({"role": role, "parts": parts})
    if turns and turns[0]["role"] == "model":
        turns.insert(0, {"role": "user", "parts": [{"text": "..."}]})
    return turns


def _role(message: Message) -> str:
    approval = message.role == MessageRole.MESSAGE_ROLE_APPROVAL and not message.approvals
    return "model" if approval or message.role == MessageRole.MESSAGE_ROLE_ASSISTANT else "user"


def _returns(message: Message, names: dict[str, str]) -> Iterator[Json]:
    for approval in message.approvals:
        if approval.WhichOneof("approval") == "tool_return":
            returned = approval.tool_return
            yield _result(names, returned.tool_call_id, return_text(returned), failed=returned.status == 2)


def _part(part: ContentPart, names: dict[str, str], *, signed: bool) -> Json | None:
    """Return a part as it goes out; `signed` says that texts keep their signatures, as in the turn that goes on."""
    match part.WhichOneof("part"):
        case "text" if part.text.text:
            return _with_signature({"text": part.text.text}, part.text.signature if signed else "")
        case "image":
            return _image(part.image)
        case "tool_call":
            call = part.tool_call
            names[call.id] = call.name
            made: Json = {"function_call": {"name": call.name, "args": given_arguments(call.input)}}
            return _with_signature(made, call.signature)
        case "tool_return":
            returned = part.tool_return
            return _result(names, returned.tool_call_id, returned.content, failed=returned.is_error)
    return None


def _with_signature(made: Json, signature: str) -> Json:
    given = _bytes(signatures.opened(_VENDOR, signature))
    return {**made, "thought_signature": given} if given else made


def _bytes(encoded: str | None) -> bytes:
    """Return a signature as the SDK takes it; nothing for one that is none."""
    try:
        return base64.b64decode(encoded or "")
    except binascii.Error:
        return b""


def _result(names: dict[str, str], id: str, content: str, *, failed: bool) -> Json:
    response = {"error" if failed else "output": content}
    return {"function_response": {"name": names.get(id) or "tool", "response": response}}


def _image(image: ImageContent) -> Json | None:
    source = image.source
    kind = source.WhichOneof("source")
    if kind == "url":
        return {"file_data": {"file_uri": source.url.url, "mime_type": "image/*"}}
    held = source.base64 if kind == "base64" else source.letta
    return {"inline_data": {"data": held.data, "mime_type": held.media_type or "image/png"}} if held.data else None


def answer(body: Any, *, vendor: str) -> Answer:
    """Read an answer. Raises LLMInvalidResponse when it has no candidate or cannot be read."""
    reader = StreamReader(vendor=vendor, model="")
    parts: dict[int, Part] = {}
    completed: Completed | None = None
    for event in (*reader.feed(body), *reader.end()):
        match event:
            case Started(index, part):
                parts[index] = part
            case Delta(index, text):
                parts[index] = _longer(parts[index], text)
            case Signed(index, signature) if isinstance(part := parts[index], Text):
                parts[index] = Text(part.text, signature)
            case Completed():
                completed = event
    if completed is None or not (parts or completed.finish_reason is not FinishReason.STOP):
        raise LLMInvalidResponse(f"{vendor} answered without content", provider=vendor)
    whole = [part for _, part in sorted(parts.items())]
    made = finished(whole, completed.finish_reason)
    return Answer(made, completed.finish_reason, completed.usage, completed.response_id, why=completed.why)


def _longer(part: Part, text: str) -> Part:
    match part:
        case Text(said, signature):
            return Text(said + text, signature)
        case Reasoning(said, signature):
            return Reasoning(said + text, signature)
        case ToolCall(id, name, said, signature):
            return ToolCall(id, name, said + text, signature)
    return part


def usage(counts: Any) -> Usage | None:
    """Read the counts of tokens; the vendor counts thoughts apart, the contract counts them in."""
    counts = table(counts)
    if not (prompt := count(counts.get("promptTokenCount"))):
        return None
    thoughts = count(counts.get("thoughtsTokenCount"))
    return Usage(
        prompt=prompt + count(counts.get("toolUsePromptTokenCount")),
        completion=count(counts.get("candidatesTokenCount")) + thoughts,
        cached_input=count(counts.get("cachedContentTokenCount")),
        reasoning=thoughts,
    )


class StreamReader:
    """Reads the chunks of a stream; a call comes whole."""

    def __init__(self, *, vendor: str, model: str) -> None:
        self._vendor, self._model = vendor, model
        self._next = 0
        self._speech = ""  # kind of the open text or reasoning
        self._calls = False
        self._finish: Any = None
        self._why = ""
        self._usage: Usage | None = None
        self._id = ""

    def feed(self, chunk: Any) -> Iterator[Event]:
        """Yield what a chunk says. Raises the error that the vendor put into the stream."""
        if not isinstance(chunk, dict):
            raise LLMInvalidResponse(f"{self._vendor} streamed something that is no JSON object", provider=self._vendor)
        if chunk.get("error"):
            raise stream_refusal(self._vendor, chunk["error"], model=self._model)
        self._id = words(chunk.get("responseId")) or self._id
        self._usage = usage(chunk.get("usageMetadata")) or self._usage
        if (blocked := table(chunk.get("promptFeedback"))).get("blockReason"):
            self._finish, self._why = "SAFETY", _why(blocked)
        for candidate in rows(chunk.get("candidates"))[:1]:
            for part in rows(table(candidate.get("content")).get("parts")):
                yield from self._part(part)
            if finish := candidate.get("finishReason"):
                self._finish, self._why = finish, _why(candidate)
            if self._finish == "MALFORMED_FUNCTION_CALL":
                raise LLMInvalidResponse(f"{self._vendor} made a call that cannot be read", provider=self._vendor)

    def end(self) -> Iterator[Event]:
        """Yield the end. Raises LLMInvalidResponse when the stream was cut before the model stopped."""
        yield from self._hush()
        if self._finish is None:
            raise LLMInvalidResponse(f"{self._vendor} ended the stream before the model stopped", provider=self._vendor)
        plain = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
        finish = _FINISH.get(str(self._finish), plain)
        why = self._why if finish is FinishReason.CONTENT_FILTER else ""
        yield Completed(finish, self._usage, self._id, why=why)

    def _part(self, part: Json) -> Iterator[Event]:
        signature = words(part.get("thoughtSignature"))
        signed = signatures.sealed(_VENDOR, _standard(signature)) if signature else None
        if call := part.get("functionCall"):
            yield from self._call(table(call), signed)
            return
        if text := words(part.get("text")):
            kind = "reasoning" if part.get("thought") else "text"
            if kind != self._speech:
                yield from self._hush()
                self._speech = kind
                yield Started(self._next, Text() if kind == "text" else Reasoning())
                self._next += 1
            yield Delta(self._next - 1, text)
        if signed and self._speech == "text":  # the one of a text may come behind it, with no text of its own
            yield Signed(self._next - 1, signed)

    def _call(self, call: Json, signed: str | None) -> Iterator[Event]:
        if not (name := words(call.get("name"))):
            raise LLMInvalidResponse(f"{self._vendor} called a tool without naming it", provider=self._vendor)
        yield from self._hush()
        self._calls = True
        yield Started(self._next, ToolCall(new_call_id(), name, signature=signed))
        yield Delta(self._next, text_of(call.get("args") or {}))
        if signed:
            yield Signed(self._next, signed)
        yield Ended(self._next)
        self._next += 1

    def _hush(self) -> Iterator[Event]:
        if self._speech:
            self._speech = ""
            yield Ended(self._next - 1)


def _why(stopped: Json) -> str:
    return said({key: stopped.get(key) for key in _WORDS_OF_STOPS})


def _standard(encoded: str) -> str:
    """Return base64 in its standard alphabet, which the SDK writes in the one for addresses."""
    return encoded.replace("-", "+").replace("_", "/")
