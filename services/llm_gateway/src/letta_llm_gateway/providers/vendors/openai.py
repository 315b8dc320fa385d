"""OpenAI, through the official SDK: its responses here, its chat completions as other servers speak them too."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import httpx2

from letta.common.v1.message_pb2 import ContentPart, Message, MessageRole
from letta.common.v1.model_settings_pb2 import ModelSettings
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import (
    FinishReason,
    Generation,
    Prompt,
    ToolChoiceMode,
    ToolDefinition,
)
from letta_common.errors import LLMInvalidResponse
from letta_llm_gateway.domain.answers import Call, Completed, Delta, Event, Signed
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks, sdks
from letta_llm_gateway.providers.errors import stream_refusal
from letta_llm_gateway.providers.parts import answer_of, call_part, reasoning_part, redacted_part, text_part
from letta_llm_gateway.providers.vendors.chat import ChatProvider
from letta_llm_gateway.providers.wires import signatures, wire_json
from letta_llm_gateway.providers.wires.arguments import finished, new_call_id, text_of
from letta_llm_gateway.providers.wires.bodies import Body, ItemsRecipe
from letta_llm_gateway.providers.wires.chat import REASONING_MODEL, answer_form
from letta_llm_gateway.providers.wires.reading import OpenParts, cut, read_name, read_object
from letta_llm_gateway.providers.wires.sse import spoken
from letta_llm_gateway.providers.wires.strictness import is_strict
from letta_llm_gateway.providers.wires.told import (
    CHOICE,
    image_url,
    limit_of,
    schema,
    told_arguments,
)
from letta_llm_gateway.providers.wires.wire_json import count, rows, table, words

Json = dict[str, Any]
_VENDOR = "openai"
_INCOMPLETE = {
    "max_output_tokens": FinishReason.FINISH_REASON_LENGTH,
    "content_filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
}

RESPONSES = "openai-responses"
"""Type of a provider that answers every model over responses."""
_PATH = "/responses"


class OpenAIProvider(ChatProvider):
    """Speaks with one account: responses with OpenAI's own reasoning models, chat completions with the others."""

    def __init__(self, account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> None:
        super().__init__(account, http, fragments)
        self._always_responds = account.provider_type == RESPONSES

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        if not self.responds(call.model):
            return await super().generate(call)
        data = (await self._asked(call)).encoded()
        with self._errors(call.model, call.prompt.tools):
            return answer(wire_json.read(await sdks.ask(self._client, _PATH, data), self._vendor), vendor=self._vendor)

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        if not self.responds(call.model):
            async with aclosing(super().stream(call)) as events:
                async for event in events:
                    yield event
            return
        data = (await self._asked(call)).encoded(stream=True)
        reader = StreamReader(vendor=self._vendor, model=call.model)
        with self._errors(call.model, call.prompt.tools):
            async with sdks.listen(self._client, _PATH, data) as chunks:
                async for event in spoken(chunks, reader, vendor=self._vendor):
                    yield event

    def rules(self, model: str) -> checks.Rules:
        """Return what the vendor's reference says of requests."""
        return checks.OPENAI if self.responds(model) else super().rules(model)

    def responds(self, model: str) -> bool:
        """Say whether a model is spoken with over responses."""
        return self._always_responds or (self._official and REASONING_MODEL.match(model) is not None)

    async def _asked(self, call: Call) -> Body:
        limit, official = call.max_output_tokens, self._official
        return await request(call.model, call.prompt, self._fragments, official=official, max_tokens=limit)


def make(account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> OpenAIProvider:
    """Make the provider of an account."""
    return OpenAIProvider(account, http, fragments)


async def request(
    model: str, prompt: Prompt, fragments: Fragments, *, official: bool, max_tokens: int | None = None
) -> Body:
    """Build the body. `official` is OpenAI itself, whose models of this wire reason and take no temperature."""
    settings = prompt.settings
    checks.check(prompt, checks.OPENAI)
    body: Json = {
        "model": model,
        # Nothing is kept at the vendor, so what the model reasoned comes and goes with the messages.
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    if prompt.system:
        body["instructions"] = prompt.system
    if limit := limit_of(settings, max_tokens):
        body["max_output_tokens"] = limit
    if settings.HasField("temperature") and not official:
        body["temperature"] = settings.temperature
    if settings.reasoning.reasoning_effort:
        # Summaries come only where they are asked for; reasoning is encrypted otherwise.
        body["reasoning"] = {"effort": settings.reasoning.reasoning_effort, "summary": "auto"}
    if text := _text_settings(prompt):
        body["text"] = text
    if prompt.tools:
        body["tools"] = [_tool(tool, settings) for tool in prompt.tools]
        body["tool_choice"] = _choice(prompt)
        body["parallel_tool_calls"] = settings.parallel_tool_calls
    return Body(body, "input", await fragments.of(_FORM, prompt.messages))


def _text_settings(prompt: Prompt) -> Json:
    settings = prompt.settings
    text: Json = {"verbosity": settings.verbosity} if settings.HasField("verbosity") else {}
    if form := answer_form(prompt):
        text["format"] = {"type": form["type"], **form.get("json_schema", {})}
    return text


def _choice(prompt: Prompt) -> str | Json:
    if prompt.tool_choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL:
        return {"type": "function", "name": prompt.tool_choice.name}
    return CHOICE.get(prompt.tool_choice.mode, "auto")


def _tool(tool: ToolDefinition, settings: ModelSettings) -> Json:
    parameters = schema(tool)
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
        "strict": is_strict(tool, settings, parameters),  # left out it would be true
    }


def _items(message: Message) -> Iterator[Json]:
    role = _role(message)
    said: list[Json] = []
    for part in message.parts:
        if block := _block(part, role):
            said.append(block)
        elif item := _item(part):
            if said:
                yield {"role": role, "content": said}
                said = []
            yield item
    if said:
        yield {"role": role, "content": said}


def _role(message: Message) -> str:
    match message.role:
        case MessageRole.MESSAGE_ROLE_SYSTEM:
            # OpenAI's reasoning models have this role in the place of `system`.
            return "developer"
        case MessageRole.MESSAGE_ROLE_ASSISTANT | MessageRole.MESSAGE_ROLE_APPROVAL:
            return "assistant"
    return "user"


def _block(part: ContentPart, role: str) -> Json | None:
    kind = part.WhichOneof("part")
    if kind == "text" and part.text.text:
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text.text}
    # The wire takes no images from an assistant.
    if kind == "image" and role != "assistant" and (url := image_url(part.image)):
        source = part.image.source
        return {"type": "input_image", "image_url": url, "detail": source.base64.detail or "auto"}
    return None


def _item(part: ContentPart) -> Json | None:
    match part.WhichOneof("part"):
        case "tool_call":
            call = part.tool_call
            return {
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": told_arguments(call.input),
            }
        case "tool_return":
            return _output(part.tool_return.tool_call_id, part.tool_return.content)
        case "reasoning":
            return _thought(part.reasoning.signature, part.reasoning.reasoning)
        case "redacted_reasoning":
            return _thought(part.redacted_reasoning.data, "")
    return None


_FORM = ItemsRecipe(_items)


def _output(call_id: str, content: str) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": content}


def _thought(signature: str, summary: str) -> Json | None:
    """Return encrypted reasoning as it came; what another vendor signed cannot be read here."""
    id, _, encrypted = (signatures.opened(_VENDOR, signature) or "").partition(":")
    if not encrypted:
        return None
    summaries = [{"type": "summary_text", "text": summary}] if summary else []
    return {"type": "reasoning", "id": id, "summary": summaries, "encrypted_content": encrypted}


def answer(body: Any, *, vendor: str) -> Generation:
    """Read an answer. Raises LLMInvalidResponse when it has no output or cannot be read."""
    body = read_object(body, vendor)
    if body.get("error"):
        raise stream_refusal(vendor, body["error"], model=str(body.get("model", "")))
    output, status = body.get("output"), body.get("status")
    # A finished answer may be empty: `lacking` judges that, and the model is asked again.
    if not isinstance(output, list) or not (output or status in {"completed", "incomplete"}):
        raise LLMInvalidResponse(f"{vendor} answered without output", provider=vendor)
    items = rows(output)
    parts = [part for item in items for part in _parts(item, vendor)]
    calls = any(part.HasField("tool_call") for part in parts)
    refused = any(piece.get("refusal") for item in items for piece in rows(item.get("content")))
    finish = FinishReason.FINISH_REASON_CONTENT_FILTER if refused else _finish(body, calls=calls)
    return finished(answer_of(finish, usage(body.get("usage")), words(body.get("id")), parts))


def _parts(item: Json, vendor: str) -> Iterator[ContentPart]:
    match item.get("type"):
        case "message":
            pieces = rows(item.get("content"))
            text = "".join(words(piece.get("text")) or words(piece.get("refusal")) for piece in pieces)
            if text:
                yield text_part(text)
        case "reasoning":
            text, signature = _summary(item), _signature(item)
            if text:
                yield reasoning_part(text, signature)
            elif signature:
                yield redacted_part(signature)
        case "function_call":
            yield call_part(new_call_id(), read_name(item, vendor), text_of(item.get("arguments")))


def _summary(item: Json) -> str:
    pieces = [*rows(item.get("summary")), *rows(item.get("content"))]
    return "\n\n".join([words(piece.get("text")) for piece in pieces])


def _signature(item: Json) -> str | None:
    encrypted = words(item.get("encrypted_content"))
    return signatures.sealed(_VENDOR, f"{words(item.get('id'))}:{encrypted}") if encrypted else None


def _finish(body: Json, *, calls: bool) -> FinishReason.ValueType:
    if body.get("status") == "incomplete":
        reason = table(body.get("incomplete_details")).get("reason")
        return _INCOMPLETE.get(str(reason), FinishReason.FINISH_REASON_STOP)
    return FinishReason.FINISH_REASON_TOOL_CALLS if calls else FinishReason.FINISH_REASON_STOP


def usage(counts: Any) -> TokenUsage | None:
    """Read the counts of tokens; None when the vendor gave none, or zeros."""
    counts = table(counts)
    if not (prompt := count(counts.get("input_tokens"))):
        return None
    inputs, outputs = table(counts.get("input_tokens_details")), table(counts.get("output_tokens_details"))
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=count(counts.get("output_tokens")),
        cached_input_tokens=count(inputs.get("cached_tokens")),
        reasoning_tokens=count(outputs.get("reasoning_tokens")),
    )


class StreamReader:
    """Reads the events of a stream; items may be interleaved."""

    def __init__(self, *, vendor: str, model: str) -> None:
        self._vendor, self._model = vendor, model
        self._parts = OpenParts()
        self._silent: set[int] = set()  # calls of which no argument has come
        self._refused = False
        self._last: Json | None = None

    def feed(self, event: Any) -> Iterator[Event]:
        """Yield what an event says. Raises the error that the vendor put into the stream."""
        event = read_object(event, self._vendor)
        given, piece = event.get("output_index"), words(event.get("delta"))
        at = given if isinstance(given, int) else 0
        match event.get("type"):
            case "response.output_text.delta" | "response.refusal.delta" as kind:
                self._refused = self._refused or kind == "response.refusal.delta"
                yield from self._say(at, text_part, piece)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                yield from self._say(at, reasoning_part, piece)
            # The blank line that stands between the parts of a summary in a whole answer.
            case "response.reasoning_summary_part.added" if at in self._parts:
                yield Delta(self._parts[at], "\n\n")
            case "response.function_call_arguments.delta" if at in self._parts:
                self._silent.discard(at)
                yield Delta(self._parts[at], piece)
            case "response.output_item.added":
                yield from self._added(at, table(event.get("item")))
            case "response.output_item.done":
                yield from self._done(at, table(event.get("item")))
            case "response.completed" | "response.incomplete":
                self._last = table(event.get("response"))
            case "response.failed":
                raise stream_refusal(self._vendor, table(event.get("response")).get("error"), model=self._model)
            case "error":
                raise stream_refusal(self._vendor, event.get("error") or event, model=self._model)
            # Compatible servers put errors without a type into the stream.
            case None if event.get("error"):
                raise stream_refusal(self._vendor, event["error"], model=self._model)

    def end(self) -> Iterator[Event]:
        """Yield the end. Raises LLMInvalidResponse when the stream was cut before the model stopped."""
        yield from self._parts.end_all()
        if self._last is None:
            raise cut(self._vendor)
        finish = (
            FinishReason.FINISH_REASON_CONTENT_FILTER if self._refused else _finish(self._last, calls=self._parts.calls)
        )
        yield Completed(answer_of(finish, usage(self._last.get("usage")), words(self._last.get("id"))))

    def _say(self, at: int, begun: Callable[[], ContentPart], piece: str) -> Iterator[Event]:
        if at not in self._parts:
            yield from self._parts.begin(at, begun())
        yield Delta(self._parts[at], piece)

    def _added(self, at: int, item: Json) -> Iterator[Event]:
        if item.get("type") == "function_call":
            self._silent.add(at)
            yield from self._parts.begin(at, call_part(new_call_id(), read_name(item, self._vendor)))
        elif item.get("type") == "message":
            yield from self._parts.begin(at, text_part())
        elif item.get("type") == "reasoning":
            self._parts.keep(at)

    def _done(self, at: int, item: Json) -> Iterator[Event]:
        """End an item; what encrypts its reasoning is complete only now."""
        signature = _signature(item) if item.get("type") == "reasoning" else None
        if at not in self._parts and item.get("type") == "function_call":  # some servers say it at once
            yield from self._added(at, item)
        if at in self._parts:
            if at in self._silent and (arguments := item.get("arguments")):
                yield Delta(self._parts[at], text_of(arguments))
            self._silent.discard(at)
            if signature:
                yield Signed(self._parts[at], signature)
        elif signature:
            yield from self._parts.begin(at, redacted_part(signature))
        yield from self._parts.end(at)
