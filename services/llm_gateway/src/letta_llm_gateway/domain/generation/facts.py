"""What the rules and the wires must know of a history as a whole: its size, its images, where its last turn began.

A message that answers calls says nothing to a vendor: the agent puts what its calls returned behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from letta.common.v1.message_pb2 import Message, MessageRole
from letta.llm.v1.generation_service_pb2 import Prompt
from letta_llm_gateway.domain.catalogue.tokens import Tokenizer, of_bytes, of_texts
from letta_llm_gateway.domain.generation.fragments import Fragments, SlowRecipe

# Vendors count some hundred to 1,600 tokens, by sizes that are not known here.
_IMAGE_TOKENS = 1000
_SIZE, _NUMBER = 100, 32


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of messages that follow each other."""

    length: int = 0
    size: int = 0
    """Bytes of what a model reads."""
    images: int = 0
    turn: int = -1
    """The place of the last message of a user, from which the turn goes on."""
    lead: int = 0
    """How many messages of role SYSTEM stand at the beginning."""


class _FactsRecipe:
    def made(self, message: Message) -> Facts:
        size = images = 0
        for part in message.parts:
            match part.WhichOneof("part"):
                case "text":
                    size += len(part.text.text.encode())
                case "image":
                    images += 1
                case "tool_call":
                    size += len(part.tool_call.input.encode()) + len(part.tool_call.name)
                case "tool_return":
                    size += len(part.tool_return.content.encode())
                case _:
                    size += part.ByteSize()
        turn = 0 if message.role == MessageRole.MESSAGE_ROLE_USER else -1
        return Facts(1, size, images, turn, int(message.role == MessageRole.MESSAGE_ROLE_SYSTEM))

    def joined(self, parts: Sequence[Facts]) -> Facts:
        length = size = images = lead = 0
        turn = -1
        for part in parts:
            size, images = size + part.size, images + part.images
            turn = length + part.turn if part.turn >= 0 else turn
            lead = length + part.lead if lead == length else lead
            length += part.length
        return Facts(length, size, images, turn, lead)

    def size(self, made: Facts) -> int:  # noqa: ARG002
        return _SIZE


_FORM = _FactsRecipe()


async def facts_of(messages: Sequence[bytes], fragments: Fragments) -> Facts:
    """Return what is known of a history. Raises InvalidArgument for bytes that are no message."""
    return await fragments.of(_FORM, messages)


def tokens_of(prompt: Prompt, facts: Facts) -> int:
    """Estimate the tokens of a prompt."""
    size = len(prompt.system.encode()) + sum(tool.ByteSize() for tool in prompt.tools) + facts.size
    return of_bytes(size) + _IMAGE_TOKENS * facts.images


async def exact_tokens_of(prompt: Prompt, fragments: Fragments, tokenizer: Tokenizer) -> int:
    """Return the tokens of a prompt, each of its messages counted once."""
    beside = [prompt.system] if prompt.system else []
    beside += [f"{tool.name}\n{tool.description}\n{tool.parameters}" for tool in prompt.tools]
    said = await fragments.of(_TokensRecipe(tokenizer), prompt.messages)
    return said + sum(await of_texts(tokenizer, [beside]))


@dataclass(frozen=True)
class _TokensRecipe(SlowRecipe[int]):
    tokenizer: Tokenizer

    async def made_of(self, messages: Sequence[Message]) -> Sequence[int]:
        return await of_texts(self.tokenizer, [_texts(message) for message in messages])

    def joined(self, parts: Sequence[int]) -> int:
        return sum(parts)

    def size(self, made: int) -> int:  # noqa: ARG002
        return _NUMBER


def _texts(message: Message) -> list[str]:
    """Gather what a vendor would count, a text for each thing that stands alone."""
    texts: list[str] = []
    for part in message.parts:
        match part.WhichOneof("part"):
            case "text":
                texts.append(part.text.text)
            case "tool_call":
                texts.append(f"{part.tool_call.name}\n{part.tool_call.input}")
            case "tool_return":
                texts.append(part.tool_return.content)
            case "reasoning":
                texts.append(part.reasoning.reasoning)
    return texts
