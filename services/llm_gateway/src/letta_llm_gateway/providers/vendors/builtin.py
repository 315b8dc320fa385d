"""The engines of `builtin/`: rules, and an echo that does no work. Neither is a language model."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import uuid4

from letta.common.v1.message_pb2 import ContentPart, Message, MessageRole
from letta.llm.v1.generation_service_pb2 import (
    FinishReason,
    Generation,
    PartDelta,
    PartEnded,
    PartStarted,
    Prompt,
    ToolChoiceMode,
)
from letta_common.errors import ModelNotFound
from letta_llm_gateway.domain.answers import Call, Completed, Event
from letta_llm_gateway.domain.catalogue.providers import ListedModel, Vector
from letta_llm_gateway.domain.generation.fragments import Fragments, SlowRecipe
from letta_llm_gateway.domain.generation.fragments import read as read_message
from letta_llm_gateway.domain.rules.engine import Dialogue, HeardMessage, Reply, Wish, decide
from letta_llm_gateway.domain.rules.facts import facts_in
from letta_llm_gateway.providers import local_embedder
from letta_llm_gateway.providers.local_embedder import LocalEmbedder
from letta_llm_gateway.providers.parts import answer_of, call_part, text_part
from letta_llm_gateway.providers.wires.told import given_arguments

RULES, ECHO = "rules", "echo"
_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+$")
_SPEAKERS = {
    MessageRole.MESSAGE_ROLE_USER: "user",
    MessageRole.MESSAGE_ROLE_ASSISTANT: "assistant",
    MessageRole.MESSAGE_ROLE_TOOL: "tool",
    MessageRole.MESSAGE_ROLE_SUMMARY: "system",
}


class BuiltinProvider:
    """Answers without a language model, and embeds on this machine."""

    def __init__(
        self,
        embedder: LocalEmbedder | None = None,
        *,
        fragments: Fragments | None = None,
        word_seconds: float = 0.02,
    ) -> None:
        self._embedder, self._fragments = embedder or LocalEmbedder(), fragments or Fragments()
        self._word_seconds = word_seconds

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        if call.model == ECHO:
            return answer_of(FinishReason.FINISH_REASON_STOP, parts=[text_part(last_user_text(call.prompt))])
        if call.model != RULES:
            raise ModelNotFound(
                f"builtin/{call.model} does not exist; use builtin/rules", handle=f"builtin/{call.model}"
            )
        dialogue = await read(call.prompt, self._fragments)
        # Loading the embedder for this would cost more than it gains.
        embed = self._embedder.embed_now if self._embedder.loaded else None
        return _answer(await asyncio.to_thread(decide, dialogue, embed))

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer word by word, at the pace of quick speech; the echo at once."""
        answer = await self.generate(call)
        for index, part in enumerate(answer.parts):
            if call.model == ECHO:
                yield PartStarted(index=index, part=part)
            elif part.HasField("tool_call"):
                tool_call = part.tool_call
                yield PartStarted(index=index, part=call_part(tool_call.id, tool_call.name))
                yield PartDelta(index=index, delta=tool_call.input)
            else:
                yield PartStarted(index=index, part=text_part())
                for word in _WORD.findall(part.text.text):
                    yield PartDelta(index=index, delta=word)
                    await asyncio.sleep(self._word_seconds)
            yield PartEnded(index=index)
        yield Completed(answer_of(answer.finish_reason))

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:
        """Turn texts into vectors with the local embedder."""
        if model != local_embedder.NAME:
            raise local_embedder.refused(model)
        return await self._embedder.embed(texts)

    async def count(self, call: Call) -> int | None:  # noqa: ARG002
        """Count nothing: rules read no tokens."""
        return None

    async def models(self) -> list[ListedModel]:
        """List the engines."""
        return [ListedModel(RULES), ListedModel(ECHO), local_embedder.listed()]

    async def close(self) -> None:
        """End the embedder's thread."""
        self._embedder.close()


async def read(prompt: Prompt, fragments: Fragments) -> Dialogue:
    """Read a prompt as the engine wants it."""
    tools = {tool.name: _schema(tool.parameters) for tool in prompt.tools}
    heard = await fragments.of(_HEARD, prompt.messages)
    return Dialogue("\n".join([prompt.system, *heard.system]), heard.turns, tools, _forced(prompt), heard.facts)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the engine needs of messages that follow each other."""

    system: tuple[str, ...]
    """System messages."""
    facts: tuple[str, ...]
    """What users say of themselves before their newest words."""
    newest: tuple[str, ...]
    """What they say of themselves there."""
    turns: tuple[HeardMessage, ...]
    """The user's newest words and what came after them; all there is where no user says anything."""


class HeardRecipe(SlowRecipe[Heard]):
    """Reads messages for the engine: in a thread, since finding facts takes longer than reading."""

    async def made_of(self, messages: Sequence[Message]) -> Sequence[Heard]:
        """Read messages."""
        return await asyncio.to_thread(lambda: list(map(_heard, messages)))

    def joined(self, parts: Sequence[Heard]) -> Heard:
        """Return what is needed of messages that follow each other."""
        facts: dict[str, None] = {}
        newest: tuple[str, ...] = ()
        turns: list[HeardMessage] = []
        for part in parts:
            if part.turns and part.turns[0].speaker == "user":
                facts.update(dict.fromkeys([*newest, *part.facts]))
                newest, turns = part.newest, []
            turns.extend(part.turns)
        return Heard(tuple(text for part in parts for text in part.system), tuple(facts), newest, tuple(turns))

    def size(self, made: Heard) -> int:
        """Return about how many bytes it takes."""
        texts = [*made.system, *made.facts, *made.newest, *(turn.text for turn in made.turns)]
        calls = [call for turn in made.turns for call in turn.calls]
        return 100 * len(texts) + sum(map(len, texts)) + sum(300 + 4 * len(repr(call.arguments)) for call in calls)


_HEARD = HeardRecipe()


def _heard(message: Message) -> Heard:
    system = (last_text(message),) if message.role == MessageRole.MESSAGE_ROLE_SYSTEM else ()
    turns = tuple(_turns(message))
    said = [fact for turn in turns if turn.speaker == "user" for fact in facts_in(turn.text)]
    return Heard(system, (), tuple(said), turns)


def _forced(prompt: Prompt) -> str:
    mode = prompt.tool_choice.mode
    if mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL:
        return prompt.tool_choice.name
    return {ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED: "*", ToolChoiceMode.TOOL_CHOICE_MODE_NONE: "-"}.get(mode, "")


@lru_cache(maxsize=512)
def _schema(text: str) -> dict[str, Any]:
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}


def _turns(message: Message) -> list[HeardMessage]:
    if message.role == MessageRole.MESSAGE_ROLE_APPROVAL:
        return [] if message.approvals else [HeardMessage("assistant", last_text(message), _wishes(message))]
    speaker = _SPEAKERS.get(message.role, "system")
    if speaker == "tool":
        returns = [part.tool_return for part in message.parts if part.WhichOneof("part") == "tool_return"]
        return [HeardMessage("tool", returned.content, failed=returned.is_error) for returned in returns]
    text = last_text(message)
    if speaker == "user" and (message.is_automated or not text.strip()):
        speaker = "system"
    return [HeardMessage(speaker, text, _wishes(message))]


def _wishes(message: Message) -> tuple[Wish, ...]:
    calls = [part.tool_call for part in message.parts if part.WhichOneof("part") == "tool_call"]
    return tuple(Wish(call.name, given_arguments(call.input)) for call in calls)


def last_text(message: Message) -> str:
    """Return the text of a message."""
    return "\n".join([part.text.text for part in message.parts if part.WhichOneof("part") == "text"])


def last_user_text(prompt: Prompt) -> str:
    """Return the text of the newest message of the user."""
    for message in map(read_message, reversed(prompt.messages)):
        if message.role == MessageRole.MESSAGE_ROLE_USER and not message.is_automated:
            return last_text(message)
    return ""


def _answer(reply: Reply) -> Generation:
    parts: list[ContentPart] = [text_part(reply.text)] if reply.text else []
    parts.extend(
        call_part(f"call_{uuid4().hex[:24]}", wish.name, json.dumps(wish.arguments, ensure_ascii=False))
        for wish in reply.calls
    )
    finish = FinishReason.FINISH_REASON_TOOL_CALLS if reply.calls else FinishReason.FINISH_REASON_STOP
    return answer_of(finish, parts=parts)
