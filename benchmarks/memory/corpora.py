"""Conversations with questions whose answers stand in known turns: LoCoMo, BEAM, and generated ones."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

_MARK = re.compile(r"\s*->->\s*[\d,]+\s*$")
_START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Turn:
    """What somebody said."""

    id: str
    session: str
    role: str
    speaker: str
    text: str
    at: datetime


@dataclass(frozen=True)
class Question:
    """A question, the turns that answer it, and pairs of an outdated turn and the newer one."""

    text: str
    gold: frozenset[str]
    updates: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Corpus:
    """A conversation and its questions."""

    turns: Sequence[Turn]
    questions: Sequence[Question]


def locomo(items: Sequence[Mapping[str, Any]]) -> list[Corpus]:
    """Read the conversations of `locomo10.json`."""
    return [_locomo(number, item) for number, item in enumerate(items)]


def _locomo(number: int, item: Mapping[str, Any]) -> Corpus:
    talk, turns = item["conversation"], []
    for session in sorted((key for key in talk if re.fullmatch(r"session_\d+", key)), key=lambda key: int(key[8:])):
        at = datetime.strptime(talk[f"{session}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for place, turn in enumerate(talk[session]):
            name = f"{number}/{turn['dia_id']}"
            said = at + timedelta(seconds=place)
            turns.append(Turn(name, f"{number}/{session}", "user", turn["speaker"], turn["text"], said))
    known = {turn.id for turn in turns}
    questions = []
    for asked in item["qa"]:
        gold = frozenset(f"{number}/{each}" for each in asked.get("evidence", ()) if f"{number}/{each}" in known)
        if gold:
            questions.append(Question(asked["question"], gold))
    return Corpus(turns, questions)


def beam(folder: Path) -> list[Corpus]:
    """Read the chats of a folder of BEAM, in which each has a `chat.json` and its probing questions."""
    return [_beam(chat.parent) for chat in sorted(folder.glob("*/chat.json"))]


def _beam(folder: Path) -> Corpus:
    turns: list[Turn] = []
    for batch in json.loads((folder / "chat.json").read_text()):
        for said in (each for group in batch["turns"] for each in group):
            at = _START + timedelta(days=int(batch["batch_number"]), seconds=len(turns))
            name, session = f"{folder.name}/{said['id']}", f"{folder.name}/{batch['batch_number']}"
            turns.append(Turn(name, session, said["role"], "", _MARK.sub("", said["content"]), at))
    probing = json.loads((folder / "probing_questions" / "probing_questions.json").read_text())
    questions = []
    for asked in (each for kind in probing.values() for each in kind):
        source = asked.get("source_chat_ids") or []
        gold = frozenset(f"{folder.name}/{each}" for each in _numbers(source))
        if gold:
            questions.append(Question(asked["question"], gold, _updates(folder.name, source)))
    return Corpus(turns, questions)


def _numbers(source: Any) -> Iterator[int]:
    if isinstance(source, int):
        yield source
    elif isinstance(source, Mapping):
        yield from (number for each in source.values() for number in _numbers(each))
    elif isinstance(source, list):
        yield from (number for each in source for number in _numbers(each))


def _updates(chat: str, source: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(source, Mapping) or "updated_info" not in source:
        return ()
    old, new = [*_numbers(source.get("original_info", []))], [*_numbers(source["updated_info"])]
    return ((f"{chat}/{old[0]}", f"{chat}/{new[-1]}"),) if old and new and old[0] != new[-1] else ()


_NAMES = ("Caroline", "Melanie", "Jon", "Gina", "Tim", "Andrew")
_DID = ("adopted a {pet}", "moved to {city}", "started to learn {skill}", "bought a {colour} {thing}")
_CHAT = ("That sounds lovely!", "How was your week?", "I am so tired today.", "What else is new?", "Tell me more.")
_ASKED = {
    "adopted a {pet}": "Which pet did {name} adopt?",
    "moved to {city}": "Where does {name} live now, after moving?",
    "started to learn {skill}": "What does {name} learn?",
    "bought a {colour} {thing}": "What colour is the {thing} that {name} bought?",
}
_FILL = {
    "pet": ("hamster", "parrot", "greyhound", "turtle", "rabbit"),
    "city": ("Lisbon", "Oslo", "Nairobi", "Lima", "Hanoi"),
    "skill": ("pottery", "Portuguese", "archery", "the cello", "sailing"),
    "colour": ("crimson", "turquoise", "beige", "violet"),
    "thing": ("bicycle", "teapot", "sofa", "canoe", "typewriter"),
}


def generated(conversations: int = 4, sessions: int = 12) -> list[Corpus]:
    """Make conversations of two people who tell each other what they do, between small talk; what they tell changes."""
    return [_generated(number, sessions, random.Random(number)) for number in range(conversations)]


def _generated(number: int, sessions: int, chance: random.Random) -> Corpus:
    pair = chance.sample(_NAMES, 2)
    turns: list[Turn] = []
    told: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for session in range(sessions):
        for place in range(14):
            name = pair[place % 2]
            text, turn = chance.choice(_CHAT), f"{number}/{session}:{place}"
            if chance.random() < 0.2:
                did = chance.choice(_DID)
                filled = {key: chance.choice(values) for key, values in _FILL.items()}
                text = f"Guess what, I {did.format(**filled)}."
                key = (name, _ASKED[did].format(name=name, **filled))
                told.setdefault(key, []).append((turn, text))
            at = _START + timedelta(days=7 * session, minutes=place)
            turns.append(Turn(turn, f"{number}/{session}", "user", name, text, at))
    questions = [
        Question(asked, frozenset(turn for turn, _ in each), ((each[-2][0], each[-1][0]),) if len(each) > 1 else ())
        for (_, asked), each in told.items()
    ]
    return Corpus(turns, questions)
