"""What a user says of himself in plain words, and what a line of a block says of the user: `lives in Oslo`, `Age: 34`.

English alone, and narrow on purpose. A sentence counts when it has one of the forms of RELATIONS from its first word to
its last; a question, a negation, a quotation, what is said of somebody else and what is only imagined have none of
them, or stand in a message that CONTEXTS leaves out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PLACE = r"(?P<value>(?-i:[A-Z][\w.'’-]*(?:(?:,? (?:of|de|del|da|la|le|the|upon|am|an der))*,? [A-Z][\w.'’-]*){0,4}))"
ORGANIZATION = r"(?P<value>(?-i:[A-Z0-9][\w.'’&-]*(?: (?:of|and|&|for|the) [A-Z][\w.'’&-]*| [A-Z0-9][\w.'’&-]*){0,4}))"
JOB = r"(?:an? )?(?P<value>(?-i:[a-z][\w-]*(?: [a-z][\w-]*){0,3}))"
NUMBER = r"(?P<value>\d{1,3})"
VALUE = r"(?P<value>[^\s,;:?!\"“”()][^,;:?!\"“”()]{0,80}?)"
_KEY = r"(?P<key>[a-z][a-z'’-]*(?: [a-z][a-z'’-]*){0,2})"
_I_AM = r"I(?:['’]m| am)"
_I_HAVE = r"I(?:['’]ve| have)?"
_SOON = r"(?: now| currently| just| recently| actually| finally)?"


@dataclass(frozen=True, slots=True)
class Relation:
    """One thing that is true of a person in one way at a time, and the forms in which users and blocks tell it."""

    name: str
    keys: tuple[str, ...] = ()
    """Keys of lines `key: value` in a block."""
    said: tuple[str, ...] = ()
    """What follows the subject in a line of a block."""
    first_person: tuple[str, ...] = ()
    """Whole sentences of a user."""


RELATIONS = (
    Relation(
        "lives in",
        ("location", "city", "home", "residence", "lives in", "home city", "current city", "based in"),
        (rf"(?:lives|resides|is living) in {PLACE}", rf"is based in {PLACE}", rf"(?:has )?moved to {PLACE}"),
        (
            rf"I{_SOON} live in {PLACE}",
            rf"{_I_AM}{_SOON} (?:living|based) in {PLACE}",
            rf"{_I_HAVE}{_SOON} (?:moved|relocated) to {PLACE}",
        ),
    ),
    Relation(
        "works at",
        ("employer", "company", "workplace", "works at", "works for"),
        (rf"(?:works|is working) (?:at|for) {ORGANIZATION}", rf"is employed (?:at|by) {ORGANIZATION}"),
        (
            rf"I{_SOON} work (?:at|for) {ORGANIZATION}",
            rf"{_I_AM}{_SOON} (?:working|employed) (?:at|for|by) {ORGANIZATION}",
            rf"{_I_HAVE}{_SOON} (?:joined|started(?: working)? (?:at|for)|switched jobs to) {ORGANIZATION}",
        ),
    ),
    Relation(
        "works as",
        ("job", "occupation", "profession", "job title", "works as"),
        (rf"works as {JOB}", rf"is working as {JOB}"),
        (rf"I{_SOON} work as {JOB}", rf"{_I_AM}{_SOON} working as {JOB}", rf"{_I_HAVE}{_SOON} become {JOB}"),
    ),
    Relation(
        "age",
        ("age",),
        (rf"is {NUMBER} years old", rf"turned {NUMBER}"),
        (rf"{_I_AM}{_SOON} {NUMBER} years old", rf"{_I_HAVE}{_SOON} turned {NUMBER}"),
    ),
    Relation(
        "preferred name",
        ("preferred name", "nickname", "goes by"),
        (rf"goes by {PLACE}", rf"prefers to be called {PLACE}"),
        (rf"(?:please )?call me {PLACE}", rf"I{_SOON} go by {PLACE}", rf"I{_SOON} prefer to be called {PLACE}"),
    ),
    Relation("prefers", ("prefers", "preference"), (rf"prefers {VALUE}(?=[.;]|$)",)),
)
"""What is told of a person. Other keys are told by `my <key> is <value>`."""
PREFERENCE = re.compile(
    r"I(?: now| actually| much)? prefer (?P<value>[\w' -]{2,60}?) (?:over|to|rather than"
    r"|instead of) (?P<former>[\w' -]{2,60}?)"
    r"(?: now| these days)?",
    re.IGNORECASE,
)
"""Two preferences are about one thing only where the former one is named."""
OWN = re.compile(
    rf"my (?:new )?{_KEY} (?:is(?: now| actually)?|(?:has |was )?changed to|became) {VALUE}", re.IGNORECASE
)
_LEAD = re.compile(
    r"(?:(?:actually|by the way|btw|fyi|oh|hey|hi|hello|well|so|also|no|yes|yeah|ok|okay|update|correction"
    r"|and|now|today|sorry"
    r"|just so you know|please note that|note that|please remember that|remember that|please remember"
    r"|remember|as of now"
    r"|as of today|from now on|good news|big news|for your records)[,:!.]? )+",
    re.IGNORECASE,
)
_TRAIL = re.compile(
    r",? (?:now|currently|these days|today|yesterday|recently|(?:last|this) (?:week|month|weekend)|a (?:week"
    r"|month) ago|as of today"
    r"|for work|for good|instead|by the way|btw|already|as you know)$",
    re.IGNORECASE,
)
CONTEXTS = re.compile(
    r"[\"“”«»`]|(?:^|\s)['‘]\w|^\s*>|"
    r"\b(?:translat\w*|rewrite|rephrase|proofread|paraphras\w*|summari[sz]e|stor(?:y|ies)|poem|novel"
    r"|fiction\w*|lyrics|song|character"
    r"|role-?play\w*|pretend\w*|imagin\w*|suppos\w*|assum\w*|hypothe\w*|what if|if|example|sentence|say|says"
    r"|said|write|writes"
    r"|wrote|draft|told|tells|quote\w*|dream\w*|joke|joking|kidding|lie|lied|test|testing|game|movie|film"
    r"|book|scene|wish|once"
    r"|when i was|as a (?:child|kid)|sarcas\w*)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""Messages that may not mean what their sentences say."""
_TURNED = re.compile(
    r"\b(?:not|no longer|never|used to|isn['’]?t|don['’]?t|didn['’]?t|won['’]?t|wouldn['’]?t|maybe|perhaps"
    r"|probably|might|may|would|could"
    r"|should|will|almost|nearly|hopefully|soon|until|unless|either|or|except|both|sometimes|usually|often|still)\b",
    re.IGNORECASE,
)
_ENDS = re.compile(r"(?<=[.!?;\n])\s+|\n+|;|,? but (?=now\b|I\b|my\b)|,? and (?=I\b|my\b|now\b)|, (?=my\b|I['’ ])")
_USER = frozenset({"", "user", "the user", "human", "the human", "he", "she", "they", "my human"})
_SPELLINGS = {"favourite": "favorite", "colour": "color", "centre": "center", "organisation": "organization"}
_UNKNOWN = frozenset({"", "unknown", "n/a", "na", "none", "tbd", "not known", "?", "not specified", "unspecified"})
_LINE = re.compile(r"\s*(?:[-*•]\s+|\d+[.)]\s+)?(?P<key>[^\W\d_][\w'’ /-]{0,40}?)\s*:\s+(?P<value>\S.*?)\s*$")
_NAME = re.compile(r"\s*(?:[-*•]\s+)?(?:full |first )?name\s*(?::|is)\s+(?P<value>[^\s,.(]+)", re.IGNORECASE)
_OWNED = re.compile(rf"(?:his|her|their|the user['’]s|user['’]s) {_KEY} is {VALUE}(?=[.;]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a user says of himself."""

    relation: str
    value: str
    sentence: str
    former: str = ""
    """What it was before, where the user says that."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a line of a block says of the user, and where in the line the value stands."""

    relation: str
    value: str
    line_number: int
    line: str
    start: int
    end: int

    def replaced(self, value: str) -> str:
        """Return the line with another value."""
        return f"{self.line[: self.start]}{value}{self.line[self.end :]}"


def statements_of(message: str) -> Iterator[Statement]:
    """Yield what a user says of himself in a message; nothing where the message may not mean what it says."""
    if CONTEXTS.search(message):
        return
    for sentence in filter(None, map(str.strip, _ENDS.split(message))):
        if sentence.endswith("?") or _TURNED.search(sentence):
            continue
        told = _LEAD.sub("", sentence, count=1) if _LEAD.match(sentence) else sentence
        said = told.rstrip(" .!")
        while (shorter := _TRAIL.sub("", said)) != said:
            said = shorter
        found = _statement(said, sentence)
        if found is not None:
            yield found


def _statement(said: str, sentence: str) -> Statement | None:
    for relation, form in _FIRST_PERSON:
        if match := form.fullmatch(said):
            return Statement(relation, match["value"], sentence)
    if match := PREFERENCE.fullmatch(said):
        return Statement("prefers", match["value"], sentence, match["former"])
    if match := OWN.fullmatch(said):
        return Statement(_relation_of(match["key"]), match["value"], sentence)
    return None


def facts_of(value: str) -> Iterator[Fact]:
    """Yield what a block says of the user, line by line."""
    lines = value.split("\n")
    names = frozenset(match["value"].casefold() for match in map(_NAME.match, lines) if match)
    for number, line in enumerate(lines, 1):
        if match := _LINE.fullmatch(line):
            yield _fact(_relation_of(match["key"]), match, number, line)
            continue
        for relation, form in _SAID:
            for match in form.finditer(line):
                if match["subject"].strip().casefold() in _USER | names:
                    yield _fact(relation, match, number, line)
        for match in _OWNED.finditer(line):
            yield _fact(_relation_of(match["key"]), match, number, line)


def _fact(relation: str, match: re.Match[str], number: int, line: str) -> Fact:
    """Return what a line says; a full stop is none of the value."""
    value, start = match["value"].rstrip("."), match.start("value")
    return Fact(relation, value, number, line, start, start + len(value))


def contradicted(statement: Statement, fact: Fact) -> bool:
    """Say whether a user says another value of the same thing than a line of a block does."""
    if statement.relation != fact.relation or _plain(fact.value) in _UNKNOWN:
        return False
    if statement.relation == "prefers":
        return bool(statement.former) and _words(fact.value) == _words(statement.former)
    if statement.relation not in _SINGLE and re.search(r"[,;/]| and | or ", fact.value):
        return False  # several values, of which the user may mean one
    return not agree(statement.value, fact.value)


def agree(one: str, other: str) -> bool:
    """Say whether two values may be the same: one has all the words of the other, or begins as it does."""
    first, second = _words(one), _words(other)
    if not first or not second or first <= second or second <= first:
        return True
    return min(len(first), len(second)) == 1 and any(
        a.startswith(b) or b.startswith(a) for a in first for b in second if min(len(a), len(b)) > 2
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", _plain(text))) - {"a", "an", "the", "of"}


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip(" .!")


def _relation_of(key: str) -> str:
    """Return what a key is of: one of RELATIONS, or itself in one spelling."""
    words = [_SPELLINGS.get(word, word) for word in re.split(r"[\s_-]+", key.casefold().strip())]
    plain = re.sub(r"['’]s\b", "", " ".join(words)).removeprefix("current ").removeprefix("my ")
    return _BY_KEY.get(plain, plain)


def _compiled(forms: Mapping[str, Sequence[str]], before: str = "") -> list[tuple[str, re.Pattern[str]]]:
    return [(name, re.compile(before + form, re.IGNORECASE)) for name, all_of in forms.items() for form in all_of]


_BY_KEY = {key: relation.name for relation in RELATIONS for key in relation.keys}
_SINGLE = frozenset({"lives in", "works at", "works as"})
"""Relations whose values have commas and conjunctions of their own."""
_FIRST_PERSON = _compiled({relation.name: relation.first_person for relation in RELATIONS})
_SAID = _compiled(
    {relation.name: relation.said for relation in RELATIONS},
    r"(?:^|(?<=[.;] )|(?<=[-*] )|(?<=and ))(?P<subject>(?:[A-Za-z][\w'’-]*(?: [a-z]\w*)? )?)(?:[Cc]urrently |now )?",
)
