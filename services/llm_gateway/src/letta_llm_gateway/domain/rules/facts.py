"""Finds what people say about themselves, and turns it from the first to the third person and back to the second."""

from __future__ import annotations

import re
from functools import lru_cache

_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?=\s|$)|\.(?=\S)[^.!?\n]+)*[.!?]*", re.UNICODE)
_GLUED = re.compile(r"\s*(?:,|;)?\s+(?:and|but|also)\s+(?=(?:I|I'm|my|we|our)\b)", re.IGNORECASE)
_FIRST_PERSON = re.compile(r"\b(?:i|i'm|i've|i'd|i'll|my|mine|me|myself|we|our|us|we're)\b", re.IGNORECASE)
_REMEMBER = re.compile(
    r"^(?:(?:please|also|and|ok|okay|hey)[, ]+)*(?:can|could|would|will)?\s*(?:you\s+)?(?:please\s+)?"
    r"(?:remember|note|memori[sz]e|keep in mind|don't forget|do not forget|never forget|save|store|write down"
    r"|take note)"
    r"(?:\s+(?:that|this|the fact that|it|for (?:me|later)))*\s*[:,]?\s+(?P<fact>.+)$",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"^(?:(?:hi|hello|hey|hiya|good (?:morning|afternoon|evening|day)|greetings)(?:\s+there)?[\s,!.]+"
    r"|(?:well|so|oh|ok|okay|actually|btw|by the way|fyi|also|and|but|yes|no|sure|please|look|listen"
    r"|correction)\b[\s,:]+)+",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"^(?:who|whose|whom|what|what's|when|when's|where|where's|which|why|how|how's|do|does|did|am|is|are|was|were|can|could|will"
    r"|would|should|shall|may|might|have|has|had|isn't|aren't|don't|doesn't|didn't)\b",
    re.IGNORECASE,
)
_REQUESTS = re.compile(
    r"^(?:please\s+)?(?:tell|show|give|list|find|search|look|write|make|create|explain|describe|help|let|say|sing|play|open|run"
    r"|translate|summari[sz]e|recommend|suggest|send|calculate|compute|remind|recall|draft|generate)\b",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"\b(?:thank|thanks)\b|^(?:sorry|oops)\b|^i(?:'m| am)? (?:want|need|would like|wonder\w*|wish|guess|mean"
    r"|think|believe|suppose|hope|see|know|(?:don't|do not) (?:know|understand|care|mind|think|get it)|agree|understand"
    r"|was wondering|have (?:a|another|one more) question|just wanted|'d like|asking|sorry|bored"
    r"|back|here|ready|fine|good|ok|okay|great|done)\b|^(?:i'd|i would) like (?:you|to)\b|^(?:let me|let us|let's)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"^(?:I'm|I am|i'm|i am|This is) "
    r"(?P<name>[A-Z][\w'-]+(?<!ish)(?<!ese)(?<!an)(?<!ic)(?: [A-Z][\w'-]+)?)[.!]*$"
)
_INVERTED = {"don't": "doesn't", "do": "does", "have": "has", "haven't": "hasn't", "am": "is", "'m": "is", "go": "goes"}
_UNCHANGED_WORDS = """
can can't cannot could couldn't will won't would wouldn't should shouldn't must may might shall was wasn't did
didn't had hadn't went got bought came saw met found left lost made took gave ate began became broke built
caught chose did drank drove fell felt flew forgot grew held heard kept knew learnt learned led lent lived
paid read said sold sent sang slept spent spoke started stood studied swam taught thought told understood used
woke won wore wrote got quit put set cut hurt
"""
_UNCHANGED = frozenset(_UNCHANGED_WORDS.split())
_SECOND = {
    "is": "are",
    "was": "were",
    "has": "have",
    "does": "do",
    "doesn't": "don't",
    "hasn't": "haven't",
    "wasn't": "weren't",
}
_ADVERBS_WORDS = """
also always never just often usually currently still already now sometimes rarely both only
"""
_ADVERBS = frozenset(_ADVERBS_WORDS.split())


def sentences(text: str) -> list[str]:
    """Split a message into sentences; two statements joined by `and` are two."""
    found: list[str] = []
    for sentence in _SENTENCE.findall(text.replace("’", "'")):
        clean = sentence.strip()
        if not clean:
            continue
        if is_question(clean) or _REQUESTS.match(clean):
            found.append(clean)
        else:
            found.extend(part.strip() for part in _GLUED.split(clean) if part.strip())
    return found


def is_question(sentence: str) -> bool:
    """Say whether a sentence asks something."""
    bare = _LEAD.sub("", sentence).strip()
    return bare.endswith("?") or (_ASKS.match(bare) is not None and not bare.endswith("!"))


def is_request(sentence: str) -> bool:
    """Say whether a sentence wants something done."""
    return _REQUESTS.match(_LEAD.sub("", sentence).strip()) is not None


def stated(sentence: str) -> str | None:
    """Return the fact that a sentence states, in the speaker's words, or None."""
    bare = _LEAD.sub("", sentence).strip()
    if asked := _REMEMBER.match(bare.rstrip("?")):
        fact = asked["fact"].strip()
        return None if _ASKS.match(fact) and bare.endswith("?") else fact
    if is_question(bare) or is_request(bare) or _CHATTER.search(bare):
        return None
    if re.match(r"^(?:call me|you can call me)\s+\S", bare, re.IGNORECASE):
        return re.sub(r"^(?:you can )?call me\s+", "I go by ", bare, flags=re.IGNORECASE)
    if named := _NAMED.match(bare):
        return f"My name is {named['name']}"
    return bare if _FIRST_PERSON.search(bare) and len(bare.split()) > 2 else None


def third_person(fact: str) -> str:
    """Turn `I live in Oslo` into `The user lives in Oslo.`"""
    text = fact.strip().rstrip(".!").strip()
    text = re.sub(r"\bI'm\b", "I am", text, flags=re.IGNORECASE)
    text = re.sub(r"\bI've\b", "I have", text, flags=re.IGNORECASE)
    text = re.sub(r"\bI'd\b", "I would", text, flags=re.IGNORECASE)
    text = re.sub(r"\bI'll\b", "I will", text, flags=re.IGNORECASE)
    text = re.sub(
        r"\b(i)\s+((?:\w+ly|" + "|".join(_ADVERBS) + r")\s+)?([\w']+)", _conjugated, text, flags=re.IGNORECASE
    )
    for pattern, other in (
        (r"\bmy\b", "the user's"),
        (r"\bmine\b", "the user's"),
        (r"\bmyself\b", "themselves"),
        (r"\bme\b", "the user"),
    ):
        text = re.sub(pattern, other, text, flags=re.IGNORECASE)
    return text[:1].upper() + text[1:] + "."


def _conjugated(match: re.Match[str]) -> str:
    adverb, verb = match[2] or "", match[3].lower()
    return f"the user {adverb}{_third(verb)}"


def _third(verb: str) -> str:
    if verb in _INVERTED:
        return _INVERTED[verb]
    if verb in _UNCHANGED or (verb.endswith("ed") and verb not in {"need", "feed", "bleed", "speed"}):
        return verb
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


def second_person(fact: str) -> str:
    """Turn `The user lives in Oslo.` into `You live in Oslo.`"""
    text = re.sub(r"\bthe user's\b", "your", fact.strip(), flags=re.IGNORECASE)
    adverbs = "|".join(_ADVERBS)
    text = re.sub(rf"\bthe user\s+((?:\w+ly|{adverbs})\s+)?([\w']+)", _addressed, text, flags=re.IGNORECASE)
    text = re.sub(r"\bthe user\b", "you", text, flags=re.IGNORECASE)
    return text[:1].upper() + text[1:]


def _addressed(match: re.Match[str]) -> str:
    return f"you {match[1] or ''}{_second(match[2])}"


def _second(verb: str) -> str:
    if verb in _SECOND:
        return _SECOND[verb]
    if verb in _UNCHANGED or not verb.endswith("s") or verb.endswith("ss"):
        return verb
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    if verb.endswith(("ches", "shes", "xes", "zes", "oes", "sses")):
        return verb[:-2]
    return verb[:-1]


@lru_cache(maxsize=512)  # for one answer the newest words are read several times
def facts_in(said: str) -> tuple[str, ...]:
    """Return what people say of themselves in a text, in the third person."""
    return tuple(third_person(fact) for sentence in sentences(said) if (fact := stated(sentence)))
