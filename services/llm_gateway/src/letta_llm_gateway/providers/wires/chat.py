"""The neutral prompt as a request of OpenAI's chat completions, and its answers as neutral parts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from letta.common.v1.message_pb2 import ContentPart, ImageContent, Message, MessageRole
from letta.common.v1.model_settings_pb2 import ModelSettings
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import (
    FinishReason,
    Generation,
    PartEnded,
    PartStarted,
    Prompt,
    ToolChoiceMode,
    ToolDefinition,
)
from letta_common.errors import LLMInvalidResponse
from letta_llm_gateway.domain.answers import Completed, Delta, Event
from letta_llm_gateway.domain.generation.facts import facts_of
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.errors import stream_refusal
from letta_llm_gateway.providers.parts import answer_of, call_part, reasoning_part, text_part
from letta_llm_gateway.providers.wires.arguments import Balance, finished, new_call_id, text_of
from letta_llm_gateway.providers.wires.bodies import Body, ItemsRecipe, encoded, together
from letta_llm_gateway.providers.wires.chat_turns import NOBODY, Said, said
from letta_llm_gateway.providers.wires.reading import cut, finish_of, read_name, read_object
from letta_llm_gateway.providers.wires.strictness import is_strict
from letta_llm_gateway.providers.wires.thinking import ThinkSplitter, split_thinking
from letta_llm_gateway.providers.wires.told import (
    CHOICE,
    answer_schema,
    image_url,
    limit_of,
    schema,
    told_arguments,
)
from letta_llm_gateway.providers.wires.turns import PhasesRecipe, Turns, TurnsRecipe, joined, turns_of
from letta_llm_gateway.providers.wires.wire_json import count, rows, table, words

Json = dict[str, Any]
# These refuse a temperature, and give their reasoning back over the responses wire alone.
REASONING_MODEL = re.compile(r"^(o[134]|gpt-5)")
_FINISH = {
    "stop": FinishReason.FINISH_REASON_STOP,
    "length": FinishReason.FINISH_REASON_LENGTH,
    "tool_calls": FinishReason.FINISH_REASON_TOOL_CALLS,
    "function_call": FinishReason.FINISH_REASON_TOOL_CALLS,
    "content_filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
}
# As many as an answer may have parts: `cleaning.MOST_PARTS`.
MOST_CALLS = 512


async def request(
    model: str,
    prompt: Prompt,
    fragments: Fragments,
    *,
    official: bool,
    max_tokens: int | None = None,
    thoughts: bool = False,
) -> Body:
    """Build the body. `official` is OpenAI itself, which reads options and orders that compatible servers refuse.

    With `thoughts`, the reasoning before the calls of the turn that goes on is sent back, which some servers need.
    """
    settings = prompt.settings
    checks.check(prompt, checks.OPENAI if official else checks.ANY)
    body: Json = {"model": model}
    reasons = official and REASONING_MODEL.match(model) is not None
    if limit := limit_of(settings, max_tokens):
        # OpenAI's reasoning models refuse the old name `max_tokens`, the only one that many other servers know.
        body["max_completion_tokens" if official else "max_tokens"] = limit
    if settings.HasField("temperature") and not reasons:
        body["temperature"] = settings.temperature
    if settings.HasField("reasoning") and settings.reasoning.reasoning_effort and (reasons or not official):
        body["reasoning_effort"] = settings.reasoning.reasoning_effort
    if settings.HasField("verbosity") and reasons:
        body["verbosity"] = settings.verbosity
    if form := answer_form(prompt):
        body["response_format"] = form
    if prompt.tools:
        body["tools"] = [_tool(tool, settings if official else ModelSettings()) for tool in prompt.tools]
        body["tool_choice"] = _choice(prompt)
        # OpenAI's default is several calls at once and ours is one; some of its reasoning models refuse the key.
        if settings.HasField("parallel_tool_calls") or (official and not reasons):
            body["parallel_tool_calls"] = settings.parallel_tool_calls
    if official:
        return Body(body, "messages", await _as_they_are(prompt, fragments))
    return Body(body, "messages", await _in_turns(prompt, fragments, thoughts=thoughts))


def answer_form(prompt: Prompt) -> Json:
    """Return the form that the answer shall have, in OpenAI's words; nothing for text. Raises LLMBadRequest."""
    given = prompt.settings.response_format
    kind = given.WhichOneof("format")
    if kind in {None, "text"}:
        return {}
    if kind != "json_schema":
        return {"type": kind}
    said = {field.name: value for field, value in given.json_schema.json_schema.ListFields()}
    return {"type": kind, kind: {**said, "schema": answer_schema(prompt)}}


def _choice(prompt: Prompt) -> str | Json:
    if prompt.tool_choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL:
        return {"type": "function", "function": {"name": prompt.tool_choice.name}}
    return CHOICE.get(prompt.tool_choice.mode, "auto")


def _tool(tool: ToolDefinition, settings: ModelSettings) -> Json:
    function: Json = {"name": tool.name, "description": tool.description, "parameters": schema(tool)}
    if is_strict(tool, settings, function["parameters"]):
        function["strict"] = True
    return {"type": "function", "function": function}


async def _as_they_are(prompt: Prompt, fragments: Fragments) -> bytes:
    """Return the conversation, message by message."""
    system = encoded({"role": "system", "content": prompt.system}) if prompt.system else b""
    return together(system, await fragments.of(_PLAIN, prompt.messages))


async def _in_turns(prompt: Prompt, fragments: Fragments, *, thoughts: bool) -> bytes:
    """Return the conversation so that neighbours of one role are one message.

    System messages come first as one, later ones are the user's words, and the user begins.
    """
    messages = tuple(prompt.messages)
    facts = await facts_of(messages, fragments)
    system = [Turns(said({"role": "system", "content": prompt.system}))] if prompt.system else []
    first = joined([*system, await fragments.of(_FIRST, messages[: facts.lead])])
    rest = messages[facts.lead :]
    goes_on = facts.turn + 1 - facts.lead if thoughts else len(rest)
    turns = await turns_of(_FOLLOWING, rest, fragments, goes_on=max(0, goes_on))
    begins = turns.first is not None and turns.first.role == "assistant"
    return together(first.encoded(), NOBODY if begins else b"", turns.encoded())


def _following(message: Message, goes_on: bool) -> Iterator[Said]:
    """Yield what a message is after the first ones: one of the system is what the user says."""
    for item in _items(message, thoughts=goes_on):
        yield said({**item, "role": "user"} if item["role"] == "system" else item)


def _items(message: Message, *, thoughts: bool = False) -> Iterator[Json]:
    role = message.role
    if role == MessageRole.MESSAGE_ROLE_TOOL:
        yield from _tool_returns(message)
    elif role in (MessageRole.MESSAGE_ROLE_ASSISTANT, MessageRole.MESSAGE_ROLE_APPROVAL):
        yield from _assistant(message, thoughts=thoughts)
    elif role == MessageRole.MESSAGE_ROLE_SYSTEM:
        yield {"role": "system", "content": _text(message)}
    else:
        yield _user(message)


def _text(message: Message) -> str:
    return "\n".join([part.text.text for part in message.parts if part.WhichOneof("part") == "text"])


def _user(message: Message) -> Json:
    if all(part.WhichOneof("part") == "text" for part in message.parts):
        return {"role": "user", "content": _text(message)}
    return {"role": "user", "content": list(filter(None, map(_user_part, message.parts)))}


def _user_part(part: ContentPart) -> Json | None:
    kind = part.WhichOneof("part")
    if kind == "text":
        return {"type": "text", "text": part.text.text}
    if kind == "image" and (url := image_url(part.image)):
        return {"type": "image_url", "image_url": {"url": url, "detail": _detail(part.image)}}
    return None


def _detail(image: ImageContent) -> str:
    source = image.source
    return source.base64.detail or source.letta.detail or "auto"


def _assistant(message: Message, *, thoughts: bool) -> Iterator[Json]:
    texts: list[str] = []
    thought: list[str] = []
    calls: list[Json] = []
    for part in message.parts:
        kind = part.WhichOneof("part")
        if kind == "text":
            texts.append(part.text.text)
        # Signed reasoning was said over another wire, whose signatures this one cannot carry.
        elif kind == "reasoning" and thoughts and not part.reasoning.signature:
            thought.append(part.reasoning.reasoning)
        elif kind == "tool_call":
            call = part.tool_call
            function = {"name": call.name, "arguments": told_arguments(call.input)}
            calls.append({"id": call.id, "type": "function", "function": function})
    if calls:
        told = {"reasoning_content": "\n".join(thought)} if thought else {}
        yield {"role": "assistant", "content": "\n".join(texts) or None, **told, "tool_calls": calls}
    elif texts:
        yield {"role": "assistant", "content": "\n".join(texts)}


def _tool_returns(message: Message) -> Iterator[Json]:
    for part in message.parts:
        if part.WhichOneof("part") == "tool_return":
            returned = part.tool_return
            yield {"role": "tool", "tool_call_id": returned.tool_call_id, "content": returned.content}


_PLAIN = ItemsRecipe(_items)
_FIRST = TurnsRecipe(lambda message: map(said, _items(message)))
_FOLLOWING = PhasesRecipe(_following, lambda message: any(part.HasField("reasoning") for part in message.parts))


def answer(body: Any, *, vendor: str, lone_tags: bool = False) -> Generation:
    """Read an answer; with `lone_tags` also think tags that close without having been opened.

    Raises LLMInvalidResponse when it has no choice or cannot be read.
    """
    body = read_object(body, vendor)
    if body.get("error"):
        raise stream_refusal(vendor, body["error"], model=str(body.get("model", "")))
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise LLMInvalidResponse(f"{vendor} answered without a choice", provider=vendor)
    if choice.get("error"):
        raise stream_refusal(vendor, choice["error"], model=str(body.get("model", "")))
    refused = words(message.get("refusal"))
    text = _content(message.get("content")) or refused
    parts = split_thinking(text, _reasoning(message), lone_tags=lone_tags)
    parts.extend(_call(call, vendor) for call in _calls(message))
    calls = any(part.HasField("tool_call") for part in parts)
    finish = finish_of("content_filter" if refused else choice.get("finish_reason"), _FINISH, calls=calls)
    return finished(answer_of(finish, usage(body.get("usage")), words(body.get("id")), parts))


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "".join(words(part.get("text")) for part in rows(content) if part.get("type") != "thinking")
    return words(content)


def _reasoning(message: Json) -> str:
    """Return the reasoning of a message or delta, under any of the names that servers give it."""
    if told := message.get("reasoning_content") or message.get("reasoning"):
        return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
    content = message.get("content")
    if not isinstance(content, list):
        return ""
    thoughts = (part.get("thinking") for part in content if isinstance(part, dict) and part.get("type") == "thinking")
    return "".join(thought if isinstance(thought, str) else _content(thought) for thought in thoughts)


def _calls(message: Json) -> list[Any]:
    """Return the calls of a message or delta; old servers know one, and call it a function call."""
    if calls := message.get("tool_calls"):
        return list(calls) if isinstance(calls, list) else [calls]
    return [{"function": message["function_call"]}] if message.get("function_call") else []


def _call(call: Any, vendor: str) -> ContentPart:
    function = table(table(call).get("function"))
    return call_part(new_call_id(), read_name(function, vendor), text_of(function.get("arguments")))


def usage(counts: Any) -> TokenUsage | None:
    """Read the counts of tokens; None when the vendor gave none, or zeros."""
    counts = table(counts)
    if not (prompt := count(counts.get("prompt_tokens"))):
        return None
    inputs, outputs = table(counts.get("prompt_tokens_details")), table(counts.get("completion_tokens_details"))
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=count(counts.get("completion_tokens")),
        cached_input_tokens=count(inputs.get("cached_tokens")),
        reasoning_tokens=count(outputs.get("reasoning_tokens")),
    )


@dataclass(slots=True)
class _Open:
    """A call that is being streamed. It begins with its name, which some servers send after its id."""

    index: int | None = None
    given: str = ""
    name: str = ""
    early: list[str] = field(default_factory=list)
    """Arguments that came before the name."""
    balance: Balance = field(default_factory=Balance)

    def differs(self, given: str, name: str) -> bool:
        """Say whether a piece with this id and name belongs to another call; some servers repeat the name."""
        if given and self.given:
            return given != self.given
        return bool(name and self.name) and (name != self.name or self.balance.complete)


class StreamReader:
    """Reads the chunks of a stream; parallel calls may be interleaved."""

    def __init__(self, *, vendor: str, model: str, opened: bool = False, lone_tags: bool = False) -> None:
        self._vendor = vendor
        self._model = model
        self._next = 0
        self._speech: tuple[str, int] | None = None  # kind and index of the open text or reasoning
        self._calls: dict[int, _Open] = {}  # by the vendor's index of a call
        self._finish: Any = None
        self._usage: TokenUsage | None = None
        self._id = ""
        self._refused = False
        self._thinking = ThinkSplitter(opened=opened, lone_tags=lone_tags)
        self._told: set[int] = set()  # parts that were told as text

    def feed(self, chunk: Any) -> Iterator[Event]:
        """Yield what a chunk says. Raises the error that the vendor put into the stream."""
        chunk = read_object(chunk, self._vendor)
        if chunk.get("error"):
            raise stream_refusal(self._vendor, chunk["error"], model=self._model)
        self._id = self._id or words(chunk.get("id"))
        self._usage = usage(chunk.get("usage")) or self._usage
        choices = rows(chunk.get("choices"))
        if not choices:
            return
        choice = choices[0]
        if choice.get("error"):
            raise stream_refusal(self._vendor, choice["error"], model=self._model)
        delta = table(choice.get("delta"))
        if reasoning := _reasoning(delta):
            yield from self._say("reasoning", reasoning)
        refused = words(delta.get("refusal"))
        self._refused = self._refused or bool(refused)
        if text := _content(delta.get("content")) or refused:
            for kind, piece in self._thinking.feed(text):
                yield from self._say(kind, piece)
        for call in _calls(delta):
            yield from self._call(call)
        if choice.get("finish_reason"):
            self._finish = choice["finish_reason"]

    def done(self) -> None:
        """Note the vendor's end mark, for servers that give no finish reason."""
        self._finish = self._finish or "stop"

    def end(self) -> Iterator[Event]:
        """Yield the end. Raises LLMInvalidResponse when the stream was cut before the model stopped."""
        for kind, piece in self._thinking.flush():
            yield from self._say(kind, piece)
        yield from self._hush()
        for call in self._calls.values():
            if call.index is None:
                raise LLMInvalidResponse(f"{self._vendor} called a tool without naming it", provider=self._vendor)
            yield PartEnded(index=call.index)
        if self._finish is None:
            raise cut(self._vendor)
        finish = finish_of("content_filter" if self._refused else self._finish, _FINISH, calls=bool(self._calls))
        thoughts = frozenset(self._told if self.closes_alone else ())
        yield Completed(answer_of(finish, self._usage, self._id), thoughts)

    @property
    def closes_alone(self) -> bool:
        """Say whether the model closed thoughts that it had not opened."""
        return self._thinking.lone

    def _say(self, kind: str, text: str) -> Iterator[Event]:
        if self._speech is None or self._speech[0] != kind or (self.closes_alone and self._speech[1] in self._told):
            yield from self._hush()
            self._speech = (kind, self._next)
            if kind == "text" and not self.closes_alone:
                self._told.add(self._next)
            yield PartStarted(index=self._next, part=text_part() if kind == "text" else reasoning_part())
            self._next += 1
        yield Delta(self._speech[1], text)

    def _hush(self) -> Iterator[Event]:
        if self._speech is not None:
            yield PartEnded(index=self._speech[1])
            self._speech = None

    def _call(self, piece: Any) -> Iterator[Event]:
        piece = table(piece)
        function = table(piece.get("function"))
        given, name = words(piece.get("id")), words(function.get("name"))
        call = self._meant(piece.get("index"), given, name)
        call.given, call.name = call.given or given, call.name or name
        if call.index is None and call.name:
            yield from self._hush()
            call.index = self._next
            self._next += 1
            yield PartStarted(index=call.index, part=call_part(new_call_id(), call.name))
            if early := "".join(call.early):
                yield Delta(call.index, early)
            call.early.clear()
        if text := text_of(function.get("arguments") or ""):
            call.balance.feed(text)
            if call.index is not None:
                yield Delta(call.index, text)
            else:
                call.early.append(text)

    def _meant(self, index: Any, given: str, name: str) -> _Open:
        """Return the call that a piece belongs to; servers leave out indices and ids, or give each call index 0."""
        last = max(self._calls, default=-1)
        # A piece without an index goes on with the newest call.
        theirs = index if isinstance(index, int) else max(0, last)
        call = self._calls.get(theirs)
        if len(self._calls) > MOST_CALLS:
            raise LLMInvalidResponse(
                f"{self._vendor} makes more than {MOST_CALLS} calls at once", provider=self._vendor
            )
        if call is None or not call.differs(given, name):
            return self._calls.setdefault(theirs, _Open())
        same = (at for at, open_ in self._calls.items() if given and open_.given == given)
        return self._calls.setdefault(next(same, last + 1), _Open())
