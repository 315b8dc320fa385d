"""The system prompt: an agent's instructions, its memory, and facts about them. What rarely changes stands first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from letta.agent.v1 import agent_pb2
from letta.common.v1 import agent_type_pb2
from letta.memory.v1 import block_pb2
from letta.memory.v1.agent_file_pb2 import Directories
from letta_agent.domain.context.directories import shown_directories
from letta_agent.domain.context.zones import local

CORE_MEMORY = "{CORE_MEMORY}"
"""Where instructions may ask for the sections about memory; by default they follow."""

DEFAULT_SYSTEM = """<base_instructions>
You are an agent with a memory of your own. The conversation you see is only its recent part: what you were told \
long ago may \
have left it, and what you learn now will leave it too. What you write into your memory stays with you.

How your memory works:
- Memory blocks are always in front of you, in the section on memory below. Each has a label, a description of \
what belongs in \
it, and a limit in characters. Keep in them what you need in every conversation: who you talk to, who you are, \
what you work on.
- Change blocks with your memory tools as soon as you learn something that lasts: names, preferences, decisions, \
corrections. \
Correct what has become wrong instead of adding a second version. Do not ask whether you may remember.
- Older messages are not lost. Search them when somebody refers to something you do not see.
- If you have an archive, put there what is worth keeping but not needed every time, and search it before you \
say that you do not \
know.

How you work:
- You may call tools, read what they return, and call more. Go on until the task is done or you need an answer \
from the person.
- Your last words, said without calling a tool, go to the person and end your turn.
- Say what you know and what you do not. Never claim to have remembered or done something that no tool call shows.
</base_instructions>"""

MEMORY_EDITOR_SYSTEM = """<base_instructions>
You tend the memory of another agent while nobody waits for you. You are shown what was said; the person is not \
talking to you and \
will not read your words.

- Keep the memory blocks true, complete and short: add what lasts, merge what belongs together, remove what has \
become wrong.
- Write facts as facts, with dates where they matter. Do not copy the conversation.
- Respect each block's description and limit, and leave read-only blocks alone.
- When nothing is left to change, finish your edits.
</base_instructions>"""

_WITHOUT_MEMORY = frozenset({agent_type_pb2.AGENT_TYPE_REACT_AGENT, agent_type_pb2.AGENT_TYPE_WORKFLOW_AGENT})
_INTRO = "These blocks are your memory. They are in every prompt you get, as they are now:"


def default_system(kind: agent_type_pb2.AgentType.ValueType) -> str:
    """Return the instructions of agents of a kind that were given none."""
    editors = (agent_type_pb2.AGENT_TYPE_SLEEPTIME_AGENT, agent_type_pb2.AGENT_TYPE_VOICE_SLEEPTIME_AGENT)
    return MEMORY_EDITOR_SYSTEM if kind in editors else DEFAULT_SYSTEM


def compile_system(
    state: agent_pb2.Agent,
    blocks: Iterable[block_pb2.Block],
    *,
    directories: Directories | None = None,
    conversation_id: str = "",
    facts: Sequence[str] = (),
    rules: Sequence[str] = (),
    system: str = "",
) -> str:
    """Return the system prompt of a step."""
    sections = sections_of(
        state, blocks, directories=directories, conversation_id=conversation_id, facts=facts, rules=rules
    )
    text = "\n\n".join(filter(None, sections))
    instructions = system or state.system
    if CORE_MEMORY in instructions:
        return instructions.replace(CORE_MEMORY, text)
    return f"{instructions}\n\n{text}"


class Sections(NamedTuple):
    """What follows the instructions in a system prompt. Sections may be empty."""

    memory: str
    rules: str
    directories: str
    metadata: str


def sections_of(
    state: agent_pb2.Agent,
    blocks: Iterable[block_pb2.Block],
    *,
    directories: Directories | None = None,
    conversation_id: str = "",
    facts: Sequence[str] = (),
    rules: Sequence[str] = (),
) -> Sections:
    """Return the sections of a system prompt, in order."""
    return Sections(
        memory="" if state.agent_type in _WITHOUT_MEMORY else _memory(blocks),
        rules="\n".join(("<tool_usage_rules>", *rules, "</tool_usage_rules>")) if rules else "",
        directories=shown_directories(directories) if directories is not None else "",
        metadata=_metadata(state.id, conversation_id, facts),
    )


def facts_of(now: datetime, timezone: str, messages: int, passages: int) -> list[str]:
    """Return what the prompt says about time and about what lies outside of it; to the day, so that it caches."""
    today, zone = local(now, timezone)
    facts = [f"Today is {today:%A, %Y-%m-%d} ({zone})"]
    if messages:
        facts.append(f"{messages} messages of this conversation are kept; older ones can be searched")
    if passages:
        facts.append(f"{passages} passages are in your archive")
    return facts


def _memory(blocks: Iterable[block_pb2.Block]) -> str:
    # Always in one order, since vendors cache a prompt up to where it first differs.
    shown = [_block(block) for block in sorted(blocks, key=lambda block: block.label)]
    if not shown:
        return ""
    return "\n\n".join(("<memory_blocks>", _INTRO, *shown, "</memory_blocks>"))


def _block(block: block_pb2.Block) -> str:
    lines = [f"<{block.label}>", f"<description>{block.description}</description>", "<metadata>"]
    if block.read_only:
        lines.append("- read_only=true")
    lines += [
        f"- chars_current={len(block.value)}",
        f"- chars_limit={block.limit}",
        "</metadata>",
        "<value>",
        block.value,
        "</value>",
        f"</{block.label}>",
    ]
    return "\n".join(lines)


def _metadata(agent_id: str, conversation_id: str, facts: Sequence[str]) -> str:
    thread = "default" if conversation_id in {"", agent_id} else conversation_id
    lines = [f"AGENT_ID: {agent_id}", f"CONVERSATION_ID: {thread}", *facts]
    return "\n".join(("<memory_metadata>", *(f"- {line}" for line in lines), "</memory_metadata>"))
