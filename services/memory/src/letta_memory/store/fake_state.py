"""What the in-memory stores share, and the edits of blocks as the database makes them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, BlockNotFound
from letta_common.repeats import require_same
from letta_memory.domain.archives import Archive
from letta_memory.domain.blocks import Block
from letta_memory.domain.contexts import NewMessage, Status, refusal
from letta_memory.domain.edits import Append, BlockEdit, Create, Insert, Rename, Replace, Rethink
from letta_memory.domain.embeddings import Failure, Vector
from letta_memory.domain.passages import Passage

Key = tuple[str, str]
"""Organization and id."""
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(slots=True)
class Stored:
    """A message with its place in its conversation."""

    message: NewMessage
    agent_id: str
    conversation_id: str
    seq: int
    vector: Vector | None = None


@dataclass(slots=True)
class Conversation:
    """A conversation with its fence and window."""

    agent_id: str
    fence: int = 0
    next_seq: int = 1
    first_seq: int = 1
    window_seq: int = 1
    summary_seq: int = 0
    messages: list[Stored] = field(default_factory=list)
    blocks: dict[str, str] = field(default_factory=dict)

    def append(self, conversation_id: str, messages: Iterable[NewMessage], run_id: str = "") -> None:
        """Append messages."""
        for message in messages:
            known = replace(message, run_id=message.run_id or run_id)
            self.messages.append(Stored(known, self.agent_id, conversation_id, self.next_seq))
            self.next_seq += 1

    def window(self) -> list[NewMessage]:
        """Return the messages in context: first, summary, rest."""
        lanes = [
            [stored for stored in self.messages if stored.seq == self.first_seq],
            [stored for stored in self.messages if stored.seq == self.summary_seq],
            [
                stored
                for stored in self.messages
                if stored.seq >= self.window_seq and stored.seq != self.first_seq and stored.message.role != _SUMMARY
            ],
        ]
        return [stored.message for lane in lanes for stored in lane]


class Dated(dict[_K, _V]):
    """A dictionary that knows when its items were put into it."""

    def __init__(self) -> None:
        super().__init__()
        self._times: dict[_K, datetime] = {}

    def __setitem__(self, key: _K, value: _V) -> None:
        """Put an item."""
        self._times[key] = datetime.now(UTC)
        super().__setitem__(key, value)

    def prune(self, before: datetime, limit: int) -> int:
        """Remove some items that were put before a time; return how many."""
        old = [key for key in self if self._times[key] < before][:limit]
        for key in old:
            del self[key]
        return len(old)


@dataclass(slots=True)
class FakeState:
    """Everything memory keeps, in dictionaries."""

    agents: dict[Key, str] = field(default_factory=dict)
    embedders: dict[Key, str] = field(default_factory=dict)
    """Of agents."""
    failures: dict[Key, Failure] = field(default_factory=dict)
    """Of archives."""
    conversations: dict[Key, Conversation] = field(default_factory=dict)
    blocks: dict[Key, Block] = field(default_factory=dict)
    agent_blocks: dict[Key, dict[str, str]] = field(default_factory=dict)
    steps: Dated[tuple[str, str, int], int] = field(default_factory=Dated)
    """Stop reasons by organization, run and step."""
    edits: dict[Key, tuple[bytes, Block]] = field(default_factory=dict)
    archives: dict[Key, Archive] = field(default_factory=dict)
    archive_agents: dict[Key, str] = field(default_factory=dict)
    passages: dict[Key, Passage] = field(default_factory=dict)
    places: Dated[str, tuple[datetime, int]] = field(default_factory=Dated)
    request_hashes: dict[Key, bytes] = field(default_factory=dict)
    """Of what blocks, archives and passages were made."""

    def require_same(self, key: Key, request_hash: bytes, made: Container[Key]) -> None:
        """Raise IdempotencyConflict when another request made the object; remember the request of a new one."""
        if key in made:
            require_same(self.request_hashes.get(key), request_hash)
        else:
            self.request_hashes[key] = request_hash

    def require_agent(self, actor: Actor, agent_id: str) -> None:
        """Raise AgentNotFound unless the agent has memory."""
        if (actor.organization_id, agent_id) not in self.agents:
            raise AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)

    def reembed(self, org: str, archive_id: str, embedder: str, dimensions: int | None) -> None:
        """Let the passages of an archive wait for vectors of another embedder."""
        archive = self.archives[org, archive_id]
        self.archives[org, archive_id] = replace(archive, embedder=embedder, dimensions=dimensions)
        self.failures.pop((org, archive_id), None)
        for key, passage in self.passages.items():
            if (key[0], passage.archive_id) == (org, archive_id):
                self.passages[key] = replace(passage, embedding=None)

    def block(self, actor: Actor, block_id: str) -> Block:
        """Return a block. Raises BlockNotFound."""
        try:
            return self.blocks[actor.organization_id, block_id]
        except KeyError:
            raise BlockNotFound(f"Block with id '{block_id}' not found", block_id=block_id) from None

    def blocks_of(self, actor: Actor, agent_id: str, conversation_id: str = "") -> list[Block]:
        """Return an agent's blocks, with those that a conversation has instead, ordered by label."""
        org = actor.organization_id
        ids = dict(self.agent_blocks.get((org, agent_id), {}))
        conversation = self.conversations.get((org, conversation_id))
        if conversation is not None:
            ids |= conversation.blocks
        return [self.blocks[org, ids[label]] for label in sorted(ids)]

    def holders(self, actor: Actor, block_id: str) -> list[dict[str, str]]:
        """Return the label tables that a block stands in."""
        tables = [table for (org, _), table in self.agent_blocks.items() if org == actor.organization_id]
        tables += [known.blocks for (org, _), known in self.conversations.items() if org == actor.organization_id]
        return [table for table in tables if block_id in table.values()]


_SUMMARY = 6


def edited(block: Block, edit: BlockEdit) -> Block:
    """Return a block after an edit of its text or name. Raises what `refusal` makes of a status."""
    change = edit.edit
    if block.read_only:
        raise refusal(Status.READ_ONLY, edit, ())
    match change:
        case Append(content):
            value = f"{block.value}\n{content}" if block.value else content
        case Replace(old, new, every):
            value = _replaced(block.value, edit, (old, new), every=every)
        case Insert(text, line):
            lines = block.value.split("\n") if block.value else []
            if line > len(lines):
                raise refusal(Status.NO_LINE, edit, (str(len(lines)),))
            place = len(lines) if line == -1 else line
            value = "\n".join([*lines[:place], text, *lines[place:]])
        case Rethink(value):
            pass
        case Create(value, description):
            block = replace(block, description=description or block.description)
        case Rename(label, description):
            kept = block.description if description is None else description
            return replace(block, label=label or block.label, description=kept)
        case _:
            return block
    if len(value) > block.limit:
        raise refusal(Status.TOO_LONG, edit, (str(len(value)), str(block.limit)))
    return replace(block, value=value)


def _replaced(text: str, edit: BlockEdit, pair: tuple[str, str], *, every: bool) -> str:
    count = text.count(pair[0])
    if count == 0:
        raise refusal(Status.NO_MATCH, edit, ())
    if count > 1 and not every:
        starts = [found.start() for found in re.finditer(re.escape(pair[0]), text)]
        raise refusal(Status.NOT_UNIQUE, edit, [str(text.count("\n", 0, start) + 1) for start in starts])
    return text.replace(*pair)


@dataclass(frozen=True, slots=True)
class Found:
    """Where a text was found: its place in the list searched, its score and its ranks."""

    place: int
    score: float
    word_rank: int | None = None
    meaning_rank: int | None = None


def search(texts: Sequence[str], query: str, near: Callable[[int], float | None], *, mode: int = 3) -> list[Found]:
    """Search texts by words and by meaning, best first; `near` says how near the text at a place is to the question."""
    by_word: dict[int, float] = {} if mode == 1 else _word_scores(texts, query)
    scores = {} if mode == 2 else {place: near(place) for place in range(len(texts))}
    by_meaning = {place: score for place, score in scores.items() if score is not None}
    lanes = [_stretched(lane) for lane in (by_word, by_meaning)]
    used = sum(1 for lane in lanes if lane)
    if not used and mode != 1:
        return [Found(place, 0.0) for place, text in enumerate(texts) if query.lower() in text.lower()]
    found = [
        Found(
            place,
            sum(lane[place][0] for lane in lanes if place in lane) / used,
            *(lane[place][1] if place in lane else None for lane in lanes),
        )
        for place in {*lanes[0], *lanes[1]}
    ]
    return sorted(found, key=lambda hit: (-hit.score, -hit.place))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how near two vectors are, 1 for the same direction."""
    lengths = math.hypot(*one) * math.hypot(*other)
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def _word_scores(texts: Sequence[str], query: str) -> dict[int, float]:
    wanted = set(_stems(query))
    bags = [_stems(text) for text in texts]
    matching = {place for place, bag in enumerate(bags) if wanted & set(bag)}
    scores: dict[int, float] = {}
    for word in wanted:
        holders = [place for place in matching if word in bags[place]]
        weight = math.log(1 + (len(texts) - len(holders) + 0.5) / (len(holders) + 0.5))
        for place in holders:
            scores[place] = scores.get(place, 0) + weight / (1 + math.log(len(bags[place]) + 1))
    return scores


def _stems(text: str) -> list[str]:
    words = [word for word in re.findall(r"\w+", text.lower()) if word not in _COMMON]
    return [re.sub(r"(?<=\w{3})(s|es|ed|ing)$", "", word) for word in words]


def _stretched(scores: dict[int, float]) -> dict[int, tuple[float, int]]:
    """Stretch scores to 0..1 and rank them from 1."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    ranked = sorted(scores, key=lambda place: (-scores[place], place))
    return {
        place: ((scores[place] - low) / (high - low) if high > low else 1.0, rank)
        for rank, place in enumerate(ranked, 1)
    }


_COMMON = frozenset(
    ["a", "all", "an", "and", "any", "are", "by", "in", "is", "of", "or", "the", "to", "was", "who", "you", "i"]
)
