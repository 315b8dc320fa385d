"""Whether two texts say the same: a newer one that has all words of an older one, in its order, and little more.

Rules are narrow on purpose: what they find is right in nearly all cases, and what they miss costs nothing. Why, and
figures: docs/adr/0022.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from letta.memory.v1.memory_suggestion_pb2 import SuggestionScores

LONGEST = 20_000
"""Characters of the longest text that is compared word by word; of longer ones equal words count alone."""
LEAST_OVERLAP = 0.6
LEAST_SIMILARITY = 0.8
_WORD = re.compile(r"[^\W_]+(?:['’.:,/-][^\W_]+)*")
_ENDINGS = ("'s", "’s", "ing", "ed", "es", "s")
_SHORTEST_STEM = 3
_EMPTY = frozenset({"a", "an", "the", "that", "also", "just", "really", "very", "please"})
"""Words that change nothing of what is said."""
_TURNS = frozenset(
    {
        *("not", "no", "never", "none", "nor", "neither", "without", "unless", "except", "but", "however", "although"),
        *("instead", "if", "maybe", "perhaps", "might", "may", "almost", "former", "formerly", "previously", "longer"),
        *(
            "anymore",
            "stopped",
            "quit",
            "used",
            "wrong",
            "false",
            "cancelled",
            "canceled",
            "cannot",
            "hardly",
            "rarely",
        ),
    }
)
"""Words that turn or limit what is said: a text that has one more of them says something else."""


def digest_of(text: str) -> bytes:
    """Return the SHA-256 of a text's words, case and punctuation apart; of the text itself where it has no words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return hashlib.sha256(" ".join(_WORD.findall(folded)).encode() or text.encode()).digest()


def compare(older: str, newer: str, similarity: float | None) -> SuggestionScores | None:
    """Say how alike two texts are; None when the newer one does not say what the older one does."""
    if digest_of(older) == digest_of(newer):
        return SuggestionScores(same_text=True, word_overlap=1.0, similarity=similarity)
    if max(len(older), len(newer)) > LONGEST or (similarity is not None and similarity < LEAST_SIMILARITY):
        return None
    former, present = _words(older), _words(newer)
    more = _beyond(former, present)
    if more is None or any(_turns(word) for word in more):
        return None
    overlap = len(former) / len(present)
    return SuggestionScores(word_overlap=overlap, similarity=similarity) if overlap >= LEAST_OVERLAP else None


def _words(text: str) -> list[str]:
    """Return the words that count, in order."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return [word for word in _WORD.findall(folded) if word not in _EMPTY]


def _beyond(former: Sequence[str], present: Sequence[str]) -> list[str] | None:
    """Return the words that a text has beyond those of another; None when it has not all of those, in their order."""
    more: list[str] = []
    at = 0
    for word in present:
        if at < len(former) and _stem(word) == _stem(former[at]):
            at += 1
        else:
            more.append(word)
    return more if former and at == len(former) else None


def _stem(word: str) -> str:
    """Return a word without its ending, for words of letters alone: `likes`, `liked` and `like` are one."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM and word.isascii():
            word = word.removesuffix(ending)
            break
    return word.removesuffix("e") if len(word) > _SHORTEST_STEM else word


def _turns(word: str) -> bool:
    return word in _TURNS or word.endswith("n't")
