"""Finds the remembered facts that answer a question: by shared words, and by meaning where an embedder is loaded."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Turns texts into unit vectors, at once and without waiting."""

WORD_THRESHOLD = 0.34
MEANING_THRESHOLD = 0.42
_STOP_WORDS = """
a about again am an and any are as at be been but by can could did do does for from had has have he her him
his how i if in is it its know long many me mine much my of on or our please said say she should so some tell
that the their them there they this to told us was we were what what's when where which who whose why will
with would you your user user's im i'm remember recall ever like does doing go going thing things
"""
_STOP = frozenset(_STOP_WORDS.split())
_SYNONYMS = (
    "live reside home city town house based located country moved move address",
    "name called call nickname named",
    "job work profession occupation employer company career employed teach teacher nurse engineer",
    "birthday born birth birthdate",
    "age old year",
    "wife husband spouse partner married girlfriend boyfriend",
    "child children kid son daughter",
    "sibling brother sister",
    "parent mother father mom dad mum",
    "pet dog cat puppy kitten parrot hamster retriever terrier spaniel poodle goldfish",
    "eat food meal dish diet vegetarian vegan cook cuisine",
    "hate dislike stand detest loathe",
    "allergic allergy avoid intolerant",
    "favorite favourite prefer love enjoy best",
    "hobby hobbies enjoy play sport pastime free",
    "drink coffee tea beverage",
    "car drive vehicle",
    "speak language languages",
    "study university school college degree",
    "email mail phone number contact",
)
_PHRASES = (
    ("for a living", "job"),
    ("goes by", "name"),
    ("go by", "name"),
    ("can't stand", "hate"),
    ("how old", "age"),
)
_WEAK = frozenset(["favorite", "favourite", "best", "prefer"])  # says little without the thing that is preferred
_GROUPS: dict[str, set[int]] = {}
for _number, _line in enumerate(_SYNONYMS):
    for _word in _line.split():
        _GROUPS.setdefault(_word, set()).add(_number)


def terms(text: str) -> list[str]:
    """Return the words that carry meaning, without their commonest endings."""
    plain = text.lower().replace("’", "'")
    for phrase, word in _PHRASES:
        plain = plain.replace(phrase, word)
    words = re.findall(r"[\w']+", plain)
    return [
        stem(word.removesuffix("'s")) for word in words if word not in _STOP and word.removesuffix("'s") not in _STOP
    ]


def stem(word: str) -> str:
    """Return the word without its commonest endings."""
    for ending, least in (("ing", 6), ("ies", 5), ("ied", 5), ("ed", 5), ("es", 5), ("s", 4)):
        if word.endswith(ending) and len(word) >= least and not word.endswith("ss"):
            return word[: -len(ending)] + ("y" if ending in {"ies", "ied"} else "")
    return word


def recall(question: str, facts: Sequence[str], embed: Embed | None = None, *, most: int = 3) -> list[str]:
    """Return the facts that answer the question, the best first; none when nothing is close enough."""
    asked = terms(question)
    if not facts or not (asked or embed):
        return []
    known = [set(terms(fact)) for fact in facts]
    counts = Counter(word for words in known for word in words)
    weigh = {word: math.log(1 + len(facts) / counts[word]) + 1 if word in counts else 2.0 for word in asked}
    weigh = {word: weight * (0.25 if word in _WEAK and len(weigh) > 1 else 1) for word, weight in weigh.items()}
    owners = {stem(word) for word in re.findall(r"(\w+)'s\b", question.lower()) if word not in _STOP}
    known = [words if all(_meant(owner, words) for owner in owners) else set() for words in known]  # `my mother's name`
    scores = [_overlap(asked, words, weigh) for words in known]
    if embed is not None:
        scores = [
            _joined(score, cosine) for score, cosine in zip(scores, _cosines(question, facts, embed), strict=True)
        ]
    best = max(scores)
    if best < WORD_THRESHOLD:
        return []
    order = sorted(range(len(facts)), key=lambda at: (scores[at], at), reverse=True)  # of equals the later is newer
    return [facts[at] for at in order if scores[at] >= max(WORD_THRESHOLD, 0.8 * best)][:most]


def _overlap(asked: list[str], known: set[str], weigh: dict[str, float]) -> float:
    total = sum(weigh[word] for word in asked)
    if not total:
        return 0.0
    found = sum(weigh[word] * (1 if word in known else 0.7) for word in asked if _meant(word, known))
    return found / total


def _meant(word: str, known: set[str]) -> bool:
    """Say whether a fact has the word or one of like meaning."""
    return word in known or not _groups(word).isdisjoint(group for other in known for group in _groups(other))


def _groups(word: str) -> set[int]:
    return _GROUPS.get(word) or _GROUPS.get(word + "e") or set()


def _joined(words: float, cosine: float) -> float:
    """Join both scores; meaning alone must be clear, and supports words otherwise."""
    if cosine >= MEANING_THRESHOLD:
        return max(words, WORD_THRESHOLD) + cosine
    return words + 0.5 * max(0.0, cosine) if words else 0.0


def _cosines(question: str, facts: Sequence[str], embed: Embed) -> list[float]:
    first, *rest = embed([question, *facts])
    return [sum(a * b for a, b in zip(first, other, strict=True)) for other in rest]
