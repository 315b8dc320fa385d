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
    without = measured(pairs, [None] * len(pairs))
    sys.stdout.write(json.dumps({"duplicates": measured(pairs, cosines), "duplicates_without_vectors": without}) + "\n")


if __name__ == "__main__":
    main()
