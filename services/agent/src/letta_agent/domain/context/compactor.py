"""Making a full context smaller: the oldest messages leave it, a summary stands for them, and they stay searchable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import ceil

from letta.agent.v1 import agent_pb2
from letta.common.v1 import message_pb2
from letta.common.v1.message_pb2 import CompactionTrigger
from letta.llm.v1.generation_service_pb2 import CALL_PURPOSE_SUMMARY, Attribution, Prompt
from letta.memory.v1.context_service_pb2 import Window
from letta_agent.domain.context.working import BYTES_PER_TOKEN, read_all, slices
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.peers.models import ModelPeer
from letta_common.clock import Clock
from letta_common.errors import AppError
from letta_common.values.ids import new_id
from letta_messages.rendering import text_of

TRIGGER = 0.9
"""Share of the window above which a context is compacted."""
SHARE = 0.3  # of the window that is to be free afterwards, so that not each step compacts again
GROWTH = 1.5  # half as much again for each refusal without numbers
CLIP = 50_000  # characters of a summary; also the default that a new agent gets
_LINE = 2_000  # characters of a part, so that one long result does not push out all others
_ROLE = message_pb2.MessageRole
_MODE = agent_pb2.CompactionMode

INSTRUCTIONS = """The messages below leave the context of an agent. Write the summary that stands for them from now \
on; the agent will see nothing else of them.

Keep, in this order: what the person wants and has decided; facts, names, numbers, dates and identifiers exactly \
as they were given; what has been done and what came of it, tool results included; what is open or promised. If the \
transcript begins with an earlier summary, carry on what still matters.

Write plain sentences or short lists in the language of the conversation, in at most 400 words. Do not address anybody \
and do not comment on the task."""


@dataclass(frozen=True, slots=True)
class CompactionRequest:
    """A context that is too large."""

    state: agent_pb2.Agent
    messages: Sequence[bytes]
    overhead: int
    """Tokens of instructions and tools, which compaction cannot change."""
    window: int
    model: str
    trigger: CompactionTrigger.ValueType
    run_id: str = ""
    step_id: str = ""
    attempt: int = 0
    """How often it was compacted in this step; each time more leaves."""
    scale: float = 1.0
    """By how much the tokens are more than estimated."""

    @property
    def by_hand(self) -> bool:
        """Say whether somebody asked for it, full or not: a share of the messages leaves."""
        return self.trigger == CompactionTrigger.COMPACTION_TRIGGER_MANUAL


class Compactor:
    """Compacts contexts. It never fails: without a model's summary a mechanical one is made."""

    def __init__(self, models: ModelPeer, clock: Clock) -> None:
        self._models = models
        self._clock = clock

    async def compact(self, full: CompactionRequest) -> Window | None:
        """Return what becomes of the context, or None when there is nothing to evict."""
        found = [each async for each in read_all(full.messages)]
        parsed, tokens = [message for message, _ in found], [number for _, number in found]
        index = _cut_point(full, parsed, tokens)
        if index == 0:
            return None
        text = await self._summary(full, parsed[:index])
        summary = self._message(full, text, tokens=tokens, evicted=index)
        first = parsed[index].id if index < len(parsed) else ""
        return Window(summary=summary, first_kept_message_id=first)

    async def _summary(self, full: CompactionRequest, evicted: Sequence[Message]) -> str:
        settings = full.state.compaction_settings
        limit = settings.clip_chars or CLIP
        prompt = Prompt(
            model=settings.model or full.model,
            system=settings.prompt or INSTRUCTIONS,
            settings=settings.model_settings,
            attribution=Attribution(
                agent_id=full.state.id, run_id=full.run_id, step_id=full.step_id, purpose=CALL_PURPOSE_SUMMARY
            ),
        )
        try:
            generation = await self._models.generate(prompt, [await _transcript(evicted, full.window)])
            text = "\n".join(part.text.text for part in generation.parts if part.HasField("text")).strip()
        # Without a summary the run could not go on at all, so a mechanical one is better than an error.
        except AppError:
            text = ""
        return (text or mechanical(evicted))[:limit]

    def _message(self, full: CompactionRequest, text: str, *, tokens: Sequence[int], evicted: int) -> Message:
        before = full.overhead + sum(tokens)
        after = full.overhead + len(text.encode()) // BYTES_PER_TOKEN + sum(tokens[evicted:])
        message = Message(
            id=new_id("message"),
            role=_ROLE.MESSAGE_ROLE_SUMMARY,
            run_id=full.run_id,
            step_id=full.step_id,
            parts=[message_pb2.ContentPart(text=message_pb2.TextContent(text=text))],
            compaction_stats=message_pb2.CompactionStats(
                trigger=full.trigger,
                context_tokens_before=before,
                context_tokens_after=after,
                context_window=full.window,
                messages_count_before=len(full.messages),
                messages_count_after=len(full.messages) - evicted + 1,
            ),
        )
        message.created_at.FromDatetime(self._clock.now())
        return message


def corrected(full: CompactionRequest, told: Mapping[str, str], *, estimate: int) -> CompactionRequest:
    """Return a context that a vendor refused although we thought it would fit, with what its words tell of its size.

    A vendor that gives no numbers still says that the prompt fills the window; each further refusal counts half as
    much again.
    """
    window = min(full.window, _number(told.get("context_window")) or full.window)
    tokens = _number(told.get("tokens")) or window * GROWTH**full.attempt
    return replace(full, window=window, scale=max(1.0, tokens / max(1, estimate)))


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def mechanical(evicted: Sequence[Message]) -> str:
    """Summarize without a model: how much was said, and how each turn of the person began."""
    said = [m for m in evicted if m.role == _ROLE.MESSAGE_ROLE_USER][-20:]
    earlier = [text_of(m) for m in evicted if m.role == _ROLE.MESSAGE_ROLE_SUMMARY]
    lines = [*earlier, f"{len(evicted)} earlier messages have left the context; they can be searched."]
    if said:
        lines += ["The person's messages began:", *(f"- {' '.join(text_of(m).split())[:200]}" for m in said)]
    return "\n".join(lines)


def _cut_point(full: CompactionRequest, messages: Sequence[Message], tokens: Sequence[int]) -> int:
    """Return the number of messages to evict: as few as make the rest fit, and never a call without its return."""
    settings = full.state.compaction_settings
    # A fifth more with each attempt; something of the window always stays.
    share = min(0.95, (settings.sliding_window_percentage or SHARE) + 0.2 * full.attempt)
    room = (1 - share) * full.window / full.scale - full.overhead
    # A return never begins a context: its call would be missing, which vendors refuse.
    starts = [index for index, message in enumerate(messages) if index and _may_start(message)]
    if settings.mode in {_MODE.COMPACTION_MODE_ALL, _MODE.COMPACTION_MODE_SELF_COMPACT_ALL}:
        return starts[-1] if starts and not full.by_hand else len(messages)
    least = ceil(share * len(messages)) if full.by_hand else 1
    left = list(accumulate(reversed(tokens)))[::-1]
    for index in starts:
        if index >= least and left[index] <= room:
            return index
    return starts[-1] if starts and not full.attempt and not full.by_hand else len(messages)


def _may_start(message: Message) -> bool:
    if message.role == _ROLE.MESSAGE_ROLE_APPROVAL:
        return not message.approvals
    return message.role in {_ROLE.MESSAGE_ROLE_USER, _ROLE.MESSAGE_ROLE_ASSISTANT}


async def _transcript(evicted: Sequence[Message], window: int) -> bytes:
    lines = [line async for part in slices(evicted) for message in part for line in _lines(message)]
    text = "\n".join(lines)
    # Characters: at about four a token half the window, so that the summary's own prompt fits.
    most = max(4_000, window * 2)
    if len(text) > most:
        text = f"{text[: most // 2]}\n[...]\n{text[-most // 2 :]}"
    part = message_pb2.ContentPart(text=message_pb2.TextContent(text=f"<transcript>\n{text}\n</transcript>"))
    return Message(role=_ROLE.MESSAGE_ROLE_USER, parts=[part]).SerializeToString()


def _lines(message: Message) -> list[str]:
    role = _ROLE.Name(message.role).removeprefix("MESSAGE_ROLE_").lower()
    lines = []
    for part in message.parts:
        kind = part.WhichOneof("part")
        if kind == "text":
            lines.append(f"{role}: {part.text.text[:_LINE]}")
        elif kind == "tool_call":
            lines.append(f"{role} calls {part.tool_call.name}({part.tool_call.input[:_LINE]})")
        elif kind == "tool_return":
            lines.append(f"{part.tool_return.name} returned: {part.tool_return.content[:_LINE]}")
        elif kind == "image":
            lines.append(f"{role}: [image]")
    return lines
