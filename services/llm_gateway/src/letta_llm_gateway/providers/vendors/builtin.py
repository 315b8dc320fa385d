"""The engines of `builtin/`: rules, and an echo that does no work. Neither is a language model."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
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
from letta_llm_gateway.domain.generation.fragments import read as read_message
from letta_llm_gateway.domain.rules.engine import Dialogue, HeardMessage, Reply, Wish, decide
from letta_llm_gateway.providers import local_embedder
from letta_llm_gateway.providers.local_embedder import LocalEmbedder
from letta_llm_gateway.providers.parts import answer_of, call_part, text_part

RULES, ECHO = "rules", "echo"
_SLICE = 256  # messages read before everybody else gets a turn
_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+$")
_SPEAKERS = {
    MessageRole.MESSAGE_ROLE_USER: "user",
    MessageRole.MESSAGE_ROLE_ASSISTANT: "assistant",
    MessageRole.MESSAGE_ROLE_TOOL: "tool",
    MessageRole.MESSAGE_ROLE_SUMMARY: "system",
}


class BuiltinProvider:
    """Answers without a language model, and embeds on this machine."""

    def __init__(self, embedder: LocalEmbedder | None = None, *, word_seconds: float = 0.02) -> None:
        self._embedder = embedder or LocalEmbedder()
        self._word_seconds = word_seconds

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        if call.model == ECHO:
            return answer_of(FinishReason.FINISH_REASON_STOP, parts=[text_part(last_user_text(call.prompt))])
        if call.model != RULES:
            raise ModelNotFound(
                f"builtin/{call.model} does not exist; use builtin/rules", handle=f"builtin/{call.model}"
            )
        dialogue = await read(call.prompt)
        if not self._embedder.loaded:  # loading it for this would cost more than it gains
            return _answer(decide(dialogue))
        return _answer(await asyncio.to_thread(decide, dialogue, self._embedder.embed_now))

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


async def read(prompt: Prompt) -> Dialogue:
    """Read a prompt as the engine wants it."""
    tools = {tool.name: _schema(tool.parameters) for tool in prompt.tools}
    messages = []
    for data in prompt.messages:
        messages.append(read_message(data))
        if len(messages) % _SLICE == 0:
            await asyncio.sleep(0)
    turns = [turn for message in messages for turn in _turns(message)]
    system = "\n".join([prompt.system, *(last_text(m) for m in messages if m.role == MessageRole.MESSAGE_ROLE_SYSTEM)])
    return Dialogue(system, turns, tools, _forced(prompt))


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
        if message.approvals:
            made = [a.tool_return for a in message.approvals if a.WhichOneof("approval") == "tool_return"]
            return [HeardMessage("tool", returned.text) for returned in made]
        return [HeardMessage("assistant", last_text(message), _wishes(message))]
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
    return tuple(Wish(call.name, _schema(call.input)) for call in calls)


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
