"""Decides what `builtin/rules` does next: call a tool or reply. Deterministic; makes nothing up."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from letta_llm_gateway.domain.rules.facts import facts_in, is_question, second_person, sentences, stated
from letta_llm_gateway.domain.rules.recall import Embed, recall, terms

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """A tool call of the engine."""

    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class HeardMessage:
    """One message of the conversation, as the engine reads it."""

    speaker: str
    """`user`, `assistant`, `tool` or `system`."""
    text: str
    calls: tuple[Wish, ...] = ()
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What the engine decides from. `tools` maps names to the properties and required keys of their arguments."""

    system: str
    turns: Sequence[HeardMessage]
    """The user's newest words and what came after them; all there is where no user said anything."""
    tools: dict[str, Json] = field(default_factory=dict)
    forced: str = ""
    """The tool that must be called; `*` for any, `-` for none."""
    facts: Sequence[str] = ()
    """What users said of themselves before, as `facts_in` reads it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the engine wants: text, or calls."""

    text: str = ""
    calls: tuple[Wish, ...] = ()


UNKNOWN = "I don't know that yet. Tell me, and I will remember it."
LIMITS = (
    "I am builtin/rules, a small engine without a language model: I remember what you tell me and find it again. "
    "Set OPENAI_API_KEY or ANTHROPIC_API_KEY, or start Ollama, for real conversations."
)
_CALL = re.compile(r"^\s*CALL\s+([\w.\-]+)\s*(\{.*\})?\s*$", re.DOTALL)
_INSERT = ("memory_insert", "core_memory_append", "archival_memory_insert")
_SEARCH = ("archival_memory_search", "conversation_search")
_TEXT_KEYS = ("new_str", "new_string", "content", "new_content", "text", "value", "message")
_LABEL_KEYS = ("label", "name", "block_label")
_GREETING = re.compile(
    r"^\s*(?:hi|hello|hey|hiya|greetings|good (?:morning|afternoon|evening|day)|howdy|yo)\b", re.IGNORECASE
)
_THANKS = re.compile(r"\b(?:thanks|thank you|thx|cheers|much appreciated)\b", re.IGNORECASE)
_FAREWELL = re.compile(r"^\s*(?:bye|goodbye|see you|good night|farewell|take care)\b", re.IGNORECASE)
_PERSONAL = re.compile(r"\b(?:i|i'm|my|mine|me|we|our|us)\b", re.IGNORECASE)
_EVERYTHING = re.compile(
    r"\b(?:what|everything|all)\b.*\b(?:know|remember|stored?|memory|memories|learned|recall)\b.*\b(?:me|i)\b"
    r"|\bwho am i\b",
    re.IGNORECASE,
)
_ABOUT_MEMORY = re.compile(
    r"\b(?:remind|tell|show|recall|list)\b.*\b(?:my|i|about me|me what|me who|me where|me when|me which)\b",
    re.IGNORECASE,
)
_SELF = re.compile(
    r"\b(?:who|what) are you\b|\byour name\b|\bwhat can you do\b|\bare you (?:an? )?(?:ai|llm|bot|human|real)\b",
    re.IGNORECASE,
)
_BLOCK = re.compile(
    r"<(?P<label>[\w\-./]+)>(?P<body>(?:(?!</(?P=label)>).)*?<value>(?P<value>.*?)</value>.*?)</(?P=label)>", re.DOTALL
)
_LINE_NUMBER = re.compile(r"^\s*\d+\s*[→:|]\s?")
_LONG = re.compile(r"\b(?:archive|archival|long[- ]term)\b", re.IGNORECASE)
_SLOT = re.compile(
    r"^The user(?:'s (?P<noun>[\w ]{1,40}?) (?:is|are)|\s(?P<verb>lives in|works (?:at|for|as)|is (?=\d+ years old)))\b"
)


def decide(dialogue: Dialogue, embed: Embed | None = None) -> Reply:
    """Return the next act. The same dialogue always gets the same act."""
    reply = _decide(dialogue, embed)
    if dialogue.forced == "-" or reply.calls:
        return reply if dialogue.forced != "-" else Reply(reply.text or "Done.")
    if "send_message" in dialogue.tools and (dialogue.forced in {"*", "send_message", ""}):
        return Reply(calls=(_filled(dialogue, "send_message", text=reply.text),))
    if dialogue.forced:
        name = dialogue.forced if dialogue.forced != "*" else next(iter(dialogue.tools), "")
        return Reply(calls=(_filled(dialogue, name, text=reply.text),)) if name in dialogue.tools else reply
    return reply


def _decide(dialogue: Dialogue, embed: Embed | None) -> Reply:
    if not dialogue.turns or dialogue.turns[0].speaker != "user":
        return Reply("Hello! What should I remember for you?")
    said, after = dialogue.turns[0].text, dialogue.turns[1:]
    if found := _CALL.match(said):
        return Reply("Done.") if _answered(after) else Reply(calls=(Wish(found[1], _object(found[2])),))
    memories = _memories(dialogue)
    new = _news(said, memories)
    if new and not _answered(after) and (calls := _saving(dialogue, said, new)):
        return Reply(calls=calls)
    if search := _search(dialogue, said, after, memories, embed):
        return Reply(calls=(search,))
    return Reply(_speech(dialogue, said, after, memories, embed))


def _answered(after: Sequence[HeardMessage]) -> bool:
    return any(turn.speaker == "tool" for turn in after)


def _object(text: str | None) -> Json:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _news(said: str, memories: Sequence[str]) -> list[str]:
    """Return the facts in a message that are not in memory yet."""
    known = {_plain(memory) for memory in memories}
    return [fact for fact in dict.fromkeys(facts_in(said)) if _plain(fact) not in known]


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()


def blocks(system: str) -> dict[str, str]:
    """Return the memory blocks that a system prompt shows, by label."""
    start = system.find("<memory_blocks>")
    section = system[start + len("<memory_blocks>") :] if start >= 0 else ""
    return {
        match["label"]: match["value"].strip() for match in _BLOCK.finditer(section.partition("</memory_blocks>")[0])
    }


def _lines(value: str) -> list[str]:
    found: list[str] = []
    for line in value.splitlines():
        clean = _LINE_NUMBER.sub("", line).strip().lstrip("-*• ").strip()
        found.extend(sentence for sentence in sentences(clean) if len(sentence) > 2)
    return found


def _memories(dialogue: Dialogue) -> list[str]:
    """Return what is known before the user's newest words: blocks first, then what was said, the newest last."""
    shown = blocks(dialogue.system)
    known = [line for label, value in shown.items() if label != "persona" for line in _lines(value)]
    return list(dict.fromkeys([*known, *dialogue.facts]))


def _saving(dialogue: Dialogue, said: str, new: Sequence[str]) -> tuple[Wish, ...]:
    """Return the call that saves what is new; it replaces what a block says of the same thing."""
    shown = blocks(dialogue.system)
    label = "human" if "human" in shown or not shown else next((name for name in shown if name != "persona"), "human")
    if len(new) == 1 and "memory_replace" in dialogue.tools and (old := _contradicted(new[0], shown.get(label, ""))):
        arguments = _filled(dialogue, "memory_replace", text=new[0], label=label).arguments
        return (
            Wish(
                "memory_replace",
                {**arguments, _key(dialogue, "memory_replace", ("old_str", "old_string", "old_content")): old},
            ),
        )
    names = [name for name in _INSERT if name in dialogue.tools]
    if _LONG.search(said) and "archival_memory_insert" in names:
        names = ["archival_memory_insert"]
    return (_filled(dialogue, names[0], text="\n".join(new), label=label),) if names else ()


def _contradicted(fact: str, value: str) -> str | None:
    slot = _slot(fact)
    return next((line for line in _lines(value) if slot and _slot(line) == slot and line in value), None)


def _slot(fact: str) -> str:
    match = _SLOT.match(fact)
    return (match["noun"] or match["verb"] or "").lower() if match else ""


def _key(dialogue: Dialogue, tool: str, names: Sequence[str]) -> str:
    properties = dialogue.tools.get(tool, {}).get("properties") or {}
    return next((name for name in names if name in properties), names[0])


def _filled(dialogue: Dialogue, tool: str, *, text: str, label: str = "human") -> Wish:
    """Fill the arguments of a tool from its schema, as far as rules can."""
    schema = dialogue.tools.get(tool, {})
    properties: Json = schema.get("properties") or {}
    arguments: Json = {}
    for name in _LABEL_KEYS:
        if name in properties:
            arguments[name] = label
            break
    arguments[_key(dialogue, tool, _TEXT_KEYS)] = text
    for name in schema.get("required") or ():
        if name not in arguments:
            arguments[name] = _filler(name, properties.get(name) or {}, tool)
    return Wish(tool, arguments)


def _filler(name: str, schema: Json, tool: str) -> Any:
    if name == "request_heartbeat":
        return tool != "send_message"
    if schema.get("enum"):
        return schema["enum"][0]
    return {"integer": -1, "number": 0, "boolean": False, "array": [], "object": {}}.get(schema.get("type", ""), "")


def _search(
    dialogue: Dialogue, said: str, after: Sequence[HeardMessage], memories: Sequence[str], embed: Embed | None
) -> Wish | None:
    """Return a search of older memories for a personal question that the context does not answer."""
    open_questions = [ask for ask in _questions(said) if _PERSONAL.search(ask) and not _EVERYTHING.search(ask)]
    open_questions = [ask for ask in open_questions if not recall(ask, [*memories, *_returned(after)], embed)]
    done = {call.name for turn in after for call in turn.calls}
    names = [name for name in _SEARCH if name in dialogue.tools and name not in done]
    if not open_questions or not names:
        return None
    return _query(dialogue, names[0], " ".join(dict.fromkeys(terms(open_questions[0]))) or open_questions[0])


def _query(dialogue: Dialogue, tool: str, query: str) -> Wish:
    required = dialogue.tools[tool].get("required") or ()
    properties = dialogue.tools[tool].get("properties") or {}
    extra = {name: _filler(name, properties.get(name) or {}, tool) for name in required if name != "query"}
    return Wish(tool, {**extra, "query": query})


def _questions(said: str) -> list[str]:
    return [s for s in sentences(said) if not stated(s) and (is_question(s) or _ABOUT_MEMORY.search(s))]


def _returned(after: Sequence[HeardMessage]) -> list[str]:
    """Return the sentences that searches brought back in this turn."""
    found: list[str] = []
    calls = [call for turn in after for call in turn.calls]
    if any(call.name in _SEARCH for call in calls):
        for turn in after:
            if turn.speaker == "tool" and not turn.failed:
                found.extend(_strings(turn.text))
    return found


def _strings(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError:
        return _lines(text)
    stack: list[Any] = [value]
    found: list[str] = []
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(reversed(item.values()))
        elif isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, str) and " " in item:
            found.extend(facts_in(item) or _lines(item))
    return found


def _speech(
    dialogue: Dialogue, said: str, after: Sequence[HeardMessage], memories: Sequence[str], embed: Embed | None
) -> str:
    said_facts = facts_in(said)
    spoken: list[str] = []
    if said_facts:
        spoken.append(_confirmation(said_facts, after, memories))
    elif failure := next((turn.text for turn in reversed(after) if turn.speaker == "tool" and turn.failed), None):
        spoken.append(f"The tool failed: {failure}")
    known = [*memories, *said_facts, *_returned(after)]
    spoken.extend(_answer(question, dialogue, known, embed) for question in _questions(said))
    if not spoken:
        spoken.append(_small_talk(said, memories) if not _answered(after) else "Done.")
    return " ".join(dict.fromkeys(spoken))


def _confirmation(facts: Sequence[str], after: Sequence[HeardMessage], memories: Sequence[str]) -> str:
    told = " ".join(second_person(fact) for fact in facts)
    failed = next((turn.text for turn in reversed(after) if turn.speaker == "tool" and turn.failed), None)
    if failed is not None:
        return f"I could not save that: {failed}"
    if not _answered(after):
        known = {_plain(memory) for memory in memories}
        if all(_plain(fact) in known for fact in facts):
            return f"I remember: {told}"
        return f"Noted, for this conversation: {told}"
    return f"Got it, I will remember: {told}"


def _answer(question: str, dialogue: Dialogue, known: Sequence[str], embed: Embed | None) -> str:
    if _EVERYTHING.search(question):
        told = [second_person(fact) for fact in known if "user" in fact.lower()] or [f"“{fact}”" for fact in known]
        return f"This is what I know about you: {' '.join(told)}" if told else UNKNOWN
    if _SELF.search(question):
        persona = _lines(blocks(dialogue.system).get("persona", ""))
        return " ".join([*persona[:1], LIMITS])
    found = recall(question, known, embed if _PERSONAL.search(question) or _ABOUT_MEMORY.search(question) else None)
    if found:
        best = second_person(found[0])
        return best if best != found[0] else f"From memory: {found[0]}"
    return UNKNOWN if _PERSONAL.search(question) else f"I know nothing about that. {LIMITS}"


def _small_talk(said: str, memories: Sequence[str]) -> str:
    name = next(
        (found[1] for fact in reversed(memories) if (found := re.search(r"The user's name is ([\w\-' ]+?)[.,]", fact))),
        "",
    )
    if _THANKS.search(said):
        return "You're welcome!"
    if _FAREWELL.search(said):
        return f"Goodbye{', ' + name if name else ''}!"
    if _GREETING.search(said):
        return f"Hello{', ' + name if name else ''}! What should I remember for you, or find again?"
    return LIMITS
