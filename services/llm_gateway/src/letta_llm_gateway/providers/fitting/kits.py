"""A prompt as a vendor takes it: names, keys and ids in its letters, no tool that it would refuse, and the way back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from letta.common.v1.message_pb2 import Message, ToolCallContent
from letta.llm.v1.generation_service_pb2 import (
    Generation,
    PartDelta,
    PartEnded,
    PartStarted,
    Prompt,
    ToolChoiceMode,
    ToolDefinition,
)
from letta_common.errors import LLMBadRequest
from letta_common.values.json_texts import json_object
from letta_llm_gateway.domain.answers import Completed, Event
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.checks import Rules
from letta_llm_gateway.providers.fitting import schemas
from letta_llm_gateway.providers.fitting.call_ids import RequestIds, are_plain, calls_of
from letta_llm_gateway.providers.fitting.names import fresh
from letta_llm_gateway.providers.wires.arguments import readable
from letta_llm_gateway.providers.wires.wire_json import clean

Refused = Callable[[ToolDefinition], str]
"""Says why a vendor refuses a tool; nothing when it is not known to."""
_SLICE = 64
"""Messages that are told anew before everybody else gets a turn."""


@dataclass(slots=True)
class Kit:
    """A prompt that goes to a vendor, and what its names mean here."""

    prompt: Prompt
    own: dict[str, ToolDefinition] = field(default_factory=dict)
    """The tools as they were given, by the names under which they went out."""
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    """Own keys of arguments by the keys that went out, by the tool's name that went out."""
    warnings: list[str] = field(default_factory=list)

    def name(self, told: str) -> str:
        """Return a tool's own name."""
        return self.own[told].name if told in self.own else told

    def arguments(self, told: str, text: str) -> str:
        """Return arguments with their own keys; as they are when they cannot be read."""
        keys = self.keys.get(told)
        found = json_object(readable(text)) if keys else None
        if found is None or not keys:
            return text
        return clean(json.dumps(schemas.renamed(found, keys), ensure_ascii=False))

    def answer(self, answer: Generation) -> Generation:
        """Return a whole answer in the names of the prompt that was given."""
        for part in answer.parts:
            if part.HasField("tool_call"):
                call = part.tool_call
                call.name, call.input = self.name(call.name), self.arguments(call.name, call.input)
        answer.warnings.extend(self.warnings)
        return answer


class StreamKit:
    """Gives the events of a stream their own names; arguments whose keys differ are held until they are whole."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._held: dict[int, tuple[str, list[str]]] = {}

    def event(self, event: Event) -> Iterator[Event]:
        """Yield an event in the names of the prompt that was given."""
        if isinstance(event, PartDelta):
            if event.index in self._held:
                self._held[event.index][1].append(event.delta)
                return
        elif isinstance(event, PartStarted) and event.part.HasField("tool_call"):
            call = event.part.tool_call
            if call.name in self._kit.keys:
                self._held[event.index] = (call.name, [])
            call.name = self._kit.name(call.name)
        elif isinstance(event, PartEnded):
            yield from self._rest(event.index)
        elif isinstance(event, Completed):
            for index in list(self._held):
                yield from self._rest(index)
            event.answer.warnings.extend(self._kit.warnings)
        yield event

    def _rest(self, index: int) -> Iterator[Event]:
        name, texts = self._held.pop(index, ("", []))
        if texts:
            yield PartDelta(index=index, delta=self._kit.arguments(name, "".join(texts)))


async def fit(prompt: Prompt, rules: Rules, refused: Refused, fragments: Fragments) -> Kit:
    """Return a prompt as a vendor takes it. Raises LLMBadRequest when the tool that must be called is left out."""
    kit = Kit(prompt)
    tools = list(_tools(prompt, rules, refused, kit))
    names = {given.name: told for told, given in kit.own.items()}
    forward = {
        name: {own: out for out, own in kit.keys[told].items()} for name, told in names.items() if told in kit.keys
    }
    messages = await _messages(prompt, names, forward, fragments)
    if tools == list(prompt.tools) and messages is None:
        return kit
    kit.prompt = Prompt(
        model=prompt.model,
        system=prompt.system,
        messages=prompt.messages if messages is None else messages,
        tools=tools,
        tool_choice=prompt.tool_choice,
        settings=prompt.settings if prompt.HasField("settings") else None,
        attribution=prompt.attribution,
    )
    choice = kit.prompt.tool_choice
    if choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL:
        choice.name = names.get(choice.name, choice.name)
    elif not tools:  # nothing is left to be called
        kit.prompt.ClearField("tool_choice")
    return kit


def _tools(prompt: Prompt, rules: Rules, refused: Refused, kit: Kit) -> Iterator[ToolDefinition]:
    """Yield the tools as they go out; those that cannot are told as warnings."""
    taken = {tool.name for tool in prompt.tools if rules.name.fullmatch(tool.name)}
    seen: set[str] = set()
    for tool in prompt.tools:
        fitted, keys, note, why = _fitted(tool.parameters, rules.words)
        if tool.name in seen:
            why = "another tool has this name; rename or detach one"
        elif rules.most_tools and len(kit.own) >= rules.most_tools:
            why = f"{len(prompt.tools)} tools are more than the vendor takes, {rules.most_tools}; detach some"
        why = why or refused(tool)
        seen.add(tool.name)
        if why:
            _leave_out(tool, why, prompt, kit)
            continue
        name = tool.name if rules.name.fullmatch(tool.name) else fresh(tool.name, taken, most=64)
        taken.add(name)
        kit.own[name] = tool
        if keys:
            kit.keys[name] = keys
        description = f"{tool.description}\n{note}".strip() if note else tool.description
        yield ToolDefinition(name=name, description=description, parameters=fitted, strict=tool.strict)


def _leave_out(tool: ToolDefinition, why: str, prompt: Prompt, kit: Kit) -> None:
    choice = prompt.tool_choice
    if choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL and choice.name == tool.name and tool.name not in kit.own:
        raise LLMBadRequest(f"tool {tool.name!r} must be called and cannot be sent: {why}", tool=tool.name)
    kit.warnings.append(f"tool {tool.name!r} was left out: {why}"[:500])


@lru_cache(maxsize=2048)
def _fitted(text: str, words: frozenset[str] | None) -> tuple[str, dict[str, str], str, str]:
    """Return a schema as it goes out, its renamed keys, what else to tell, and why it cannot go out."""
    given = {} if text.strip() == "true" else json_object(text or "{}")
    if given is None:
        return "", {}, "", "its schema is no JSON object; correct it"
    try:
        fitted = schemas.fit(given, words=words)
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        return "", {}, "", f"its schema cannot be sent: {error}"
    same = fitted.schema == given
    return text if same else clean(json.dumps(fitted.schema, ensure_ascii=False)), fitted.keys, clean(fitted.note), ""


async def _messages(
    prompt: Prompt, names: Mapping[str, str], keys: Mapping[str, Mapping[str, str]], fragments: Fragments
) -> list[bytes] | None:
    """Return the messages with ids, names and keys as they go out; None when all can go as they are."""
    history = tuple(prompt.messages)
    renamed = bool(keys) or any(own != told for own, told in names.items())
    if not renamed and await are_plain(history, fragments):
        return None
    ids, found = RequestIds(), []
    changes = (tuple(sorted(names.items())), json.dumps(keys, sort_keys=True)) if renamed else None
    for message, met in zip(history, await calls_of(history, fragments), strict=True):
        told = tuple(ids.told(met))
        same = told == tuple(id for _, id in met) and (changes is None or not any(call for call, _ in met))
        if same:
            found.append(message)
        else:
            form = _Retold(told, names, keys, (told, changes))
            found.append(await fragments.of(form, (message,)))
        if len(found) % _SLICE == 0:
            await asyncio.sleep(0)
    return found


class _Retold:
    """A message with the ids, names and keys that go out in place of its own; told alike for alike changes."""

    def __init__(
        self,
        ids: Sequence[str],
        names: Mapping[str, str],
        keys: Mapping[str, Mapping[str, str]],
        changes: Hashable,
    ) -> None:
        self._ids, self._names, self._keys, self._changes = ids, names, keys, changes

    def __hash__(self) -> int:
        return hash((_Retold, self._changes))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Retold) and other._changes == self._changes

    def made(self, message: Message) -> bytes:
        """Write the message anew."""
        ids = iter(self._ids)
        for part in message.parts:
            if part.HasField("tool_call"):
                _call(part.tool_call, next(ids), self._names, self._keys)
            elif part.HasField("tool_return"):
                part.tool_return.tool_call_id = next(ids)
        return message.SerializeToString()

    def joined(self, parts: Sequence[bytes]) -> bytes:
        """Return the one message."""
        return parts[0]

    def size(self, made: bytes) -> int:
        """Return its size."""
        return len(made)


def _call(call: ToolCallContent, id: str, names: Mapping[str, str], keys: Mapping[str, Mapping[str, str]]) -> None:
    own = call.name
    call.id = id
    if own in keys and (given := json_object(call.input)) is not None:
        call.input = clean(json.dumps(schemas.renamed(given, keys[own]), ensure_ascii=False))
    call.name = names.get(own, own)
