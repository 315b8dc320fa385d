"""How often what the review of memory proposes is right: generated texts with hard negatives, and the local embedder.

`python -m benchmarks.memory.review`. Each pair of texts says whether the newer one says what the older one does. The
last line printed is JSON.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from letta_llm_gateway.providers.local_embedder import LocalEmbedder
from letta_memory.domain.review.duplicates import compare
from letta_memory.domain.review.statements import contradicted, facts_of, statements_of

_PEOPLE = ("Ann", "Bob", "Carla", "Deepak", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas")
_PLACES = ("Paris", "Lisbon", "Oslo", "Kyoto", "Quito", "Nairobi", "Leeds", "Austin")
_THINGS = ("the green bicycle", "the broken printer", "the blue kettle", "the old piano", "the spare key", "the tent")
_DAYS = ("Monday", "Tuesday", "Thursday", "Friday", "Sunday")
_FACTS = (
    "{who} moved to {where} in {month} to work for a small museum",
    "{who} wants {what} returned to {other} by {day}",
    "{who} keeps {what} in the cellar of the house in {where}",
    "{who} meets {other} in {where} each {day} at {hour}",
    "{who} is allergic to peanuts and carries medicine since {year}",
    "{who} lent {what} to {other} for the trip to {where}",
    "The budget of {who} for the trip to {where} is {amount} euros",
    "{who} prefers to be called after {hour} on {day}",
)
_MORE = ("as far as I know", "according to {other}", "which was decided last week", "as agreed with everybody")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts, the older one first, and whether the newer one says what that does."""

    kind: str
    older: str
    newer: str
    same: bool


def duplicate_pairs(seed: int, number: int) -> list[Pair]:
    """Return pairs of texts: of each fact some that say the same, and some that nearly do."""
    chance = random.Random(seed)
    pairs = []
    for _ in range(number):
        form = chance.choice(_FACTS)
        values = _values(chance)
        older = form.format(**values) + "."
        pairs += [Pair(kind, older, newer, True) for kind, newer in _same(chance, older, values)]
        pairs += [Pair(kind, older, newer, False) for kind, newer in _other(chance, form, older, values)]
    return pairs


def _values(chance: random.Random) -> dict[str, str]:
    who, other = chance.sample(_PEOPLE, 2)
    return {
        "who": who,
        "other": other,
        "where": chance.choice(_PLACES),
        "what": chance.choice(_THINGS),
        "day": chance.choice(_DAYS),
        "month": chance.choice(("March", "June", "October")),
        "hour": str(chance.randint(7, 21)),
        "year": str(chance.randint(1990, 2020)),
        "amount": str(chance.randint(2, 90) * 10),
    }


def _same(chance: random.Random, older: str, values: dict[str, str]) -> list[tuple[str, str]]:
    more = chance.choice(_MORE).format(**values)
    return [
        ("letter_case", older.upper()),
        ("punctuation", older.rstrip(".") + "!"),
        ("spaces", older.replace(" ", "  ")),
        ("more_of_it", f"{older.rstrip('.')}, {more}."),
        ("ending", older.replace("moved", "moves").replace("keeps", "keep").replace("wants", "want")),
        ("reworded", f"It is known that {older[0].lower()}{older[1:].replace(' to ', ' towards ')}"),
    ]


def _other(chance: random.Random, form: str, older: str, values: dict[str, str]) -> list[tuple[str, str]]:
    found = []
    for name in ("who", "where", "what", "day", "hour", "amount", "year", "month"):
        if f"{{{name}}}" in form:
            another = _values(chance)
            while another[name] in values.values():
                another = _values(chance)
            found.append((f"another_{name}", form.format(**{**values, name: another[name]}) + "."))
    if "{other}" in form:
        turned = {**values, "who": values["other"], "other": values["who"]}
        found.append(("turned_round", form.format(**turned) + "."))
    return [
        *found,
        ("negated", f"It is not true that {older}"),
        ("no_longer", f"{older.rstrip('.')}, but no longer."),
        ("only_planned", f"Maybe {older}"),
        ("less_of_it", " ".join(older.split()[: len(older.split()) * 2 // 3])),
        ("limited", f"{older.rstrip('.')}, except in winter."),
    ]


def measured(pairs: Sequence[Pair], similarities: Sequence[float | None]) -> dict[str, object]:
    """Return how often what is found is right, and what part of what there is was found, by kind."""
    found = [
        (pair, compare(pair.older, pair.newer, likeness) is not None)
        for pair, likeness in zip(pairs, similarities, strict=True)
    ]
    hits = [pair for pair, hit in found if hit]
    kinds = sorted({pair.kind for pair in pairs})
    return {
        "pairs": len(pairs),
        "precision": round(sum(pair.same for pair in hits) / max(1, len(hits)), 4),
        "recall": round(sum(pair.same for pair in hits) / sum(pair.same for pair in pairs), 4),
        "found": {
            kind: round(sum(hit for pair, hit in found if pair.kind == kind) / sum(p.kind == kind for p in pairs), 3)
            for kind in kinds
        },
    }


def _cosines(pairs: Sequence[Pair]) -> list[float]:
    embedder = LocalEmbedder()
    texts = sorted({text for pair in pairs for text in (pair.older, pair.newer)})
    vectors = dict(zip(texts, embedder.embed_now(texts), strict=True))
    return [sum(a * b for a, b in zip(vectors[pair.older], vectors[pair.newer], strict=True)) for pair in pairs]


_BLOCK = (
    "Name: Sam Reed\nLocation: {where}\nSam works at {firm}.\nAge: {age}\nPrefers {drink}.\nFavorite color: {color}\n"
)
_FIRMS = ("Acme Corp", "Initech", "Globex", "Umbrella Labs", "Hooli", "Stark & Sons")
_DRINKS = ("tea", "coffee", "short answers", "long walks")
_COLORS = ("green", "dark blue", "red", "yellow")
_SAID = (
    "I moved to {where}.",
    "Actually, I live in {where} now!",
    "By the way, I'm based in {where} these days. Can you find me a gym?",
    "I've just joined {firm}.",
    "I work at {firm} now and I love it.",
    "Good news: I'm working for {firm}!",
    "I just turned {age}.",
    "I am {age} years old.",
    "I prefer {drink} over {former}.",
    "My favourite color is {color}.",
    "My favorite color changed to {color}.",
    "I used to live in {old}, but now I live in {where}.",
    "Hi! I relocated to {where} last month.",
    "my wife and I have settled in {where} since spring",
    "After ten years I left my old firm; {firm} is where I am these days.",
)
_NOT_SAID = (
    "Do I live in {where}?",
    "I don't live in {where}.",
    "I no longer work at {firm}.",
    "My sister lives in {where}.",
    "Bob works at {firm} and he is {age} years old.",
    "If I lived in {where}, I would walk more.",
    "Imagine that I live in {where}.",
    "Let's pretend: I work at {firm}.",
    'He said "I live in {where}" and left.',
    "Translate to German: I live in {where}.",
    "Write a story. I live in {where}. I work at {firm}.",
    "I live in {old}.",
    "I will move to {where} next year.",
    "I might move to {where}.",
    "I want to live in {where}.",
    "I lived in {where} in 2010.",
    "I moved to {where} in 2011 and came back in 2014.",
    "I would prefer {drink} over {former}.",
    "I prefer {drink} over beer.",
    "My brother's favorite color is {color}.",
    "I'm {age} minutes late.",
    "My flight to {where} leaves at {age}.",
    "Should I join {firm}?",
    "I work at {firm} sometimes.",
    "Please book a hotel in {where} for me.",
    "I am flying to {where} and I am tired.",
    "My character says: I live in {where}.",
    "When I was a child I lived in {where}.",
    "I wish I lived in {where}.",
    "I almost joined {firm}.",
    "I am not {age} years old.",
    "My boss moved to {where}.",
    "Ann: I live in {where}.",
    "> I live in {where}\nIs that right?",
    "I live in {where} on weekends.",
    "My favorite color is not {color}.",
    "The color of my car is {color}.",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A block, a message of a user, and whether the message says otherwise than the block."""

    form: str
    block: str
    message: str
    otherwise: bool


def turns(seed: int, number: int) -> list[Turn]:
    """Return messages of each form with a block each."""
    chance = random.Random(seed)
    made = []
    for _ in range(number):
        for form, otherwise in (*((form, True) for form in _SAID), *((form, False) for form in _NOT_SAID)):
            (old, where), (firm, other), (drink, former) = (chance.sample(of, 2) for of in (_PLACES, _FIRMS, _DRINKS))
            color, new_color = chance.sample(_COLORS, 2)
            age = chance.randint(20, 60)
            block = _BLOCK.format(where=old, firm=other, age=age, drink=former, color=color)
            said = form.format(
                where=where, old=old, firm=firm, age=age + 1, drink=drink, former=former, color=new_color
            )
            made.append(Turn(form, block, said, otherwise))
    return made


def corrected(found: Sequence[Turn]) -> dict[str, object]:
    """Return how often a message that is found says otherwise, and what part of those that do was found."""
    hits = [turn for turn in found if _is_found(turn)]
    there = [turn for turn in found if turn.otherwise]
    return {
        "messages": len(found),
        "precision": round(sum(turn.otherwise for turn in hits) / max(1, len(hits)), 4),
        "recall": round(sum(turn.otherwise for turn in hits) / len(there), 4),
        "missed": sorted({turn.form for turn in there} - {turn.form for turn in hits}),
        "wrong": sorted({turn.form for turn in hits if not turn.otherwise}),
    }


def _is_found(turn: Turn) -> bool:
    facts = list(facts_of(turn.block))
    return any(contradicted(said, fact) for said in statements_of(turn.message) for fact in facts)


def main() -> None:
    """Measure on generated texts and print the report."""
    pairs = duplicate_pairs(7, 60)
    cosines = _cosines(pairs)
    by_kind: dict[str, list[float]] = {}
    for pair, cosine in zip(pairs, cosines, strict=True):
        by_kind.setdefault(f"{pair.same} {pair.kind}", []).append(cosine)
    for kind, values in sorted(by_kind.items()):
        sys.stdout.write(
            f"{kind}: least {min(values):.3f}, mean {sum(values) / len(values):.3f}, most {max(values):.3f}\n"
        )
    report = {
        "duplicates": measured(pairs, cosines),
        "duplicates_without_vectors": measured(pairs, [None] * len(pairs)),
        "corrections": corrected(turns(7, 40)),
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
