"""What is certain to be refused is refused before it is sent, with the name of what to change."""

from __future__ import annotations

import re
from dataclasses import dataclass

from letta.llm.v1.generation_service_pb2 import Prompt, ToolChoiceMode
from letta_common.errors import CapabilityMissing, LLMBadRequest


@dataclass(frozen=True, slots=True)
class Rules:
    """What a vendor's reference says of tools and forms of answers."""

    name: re.Pattern[str]
    most_tools: int = 0
    """0 is any number."""
    words: frozenset[str] | None = None
    """Keywords that it knows in schemas of arguments; None is any."""
    forms: frozenset[str] = frozenset({"text", "json_object", "json_schema"})


ANY = Rules(re.compile(r"[a-zA-Z0-9_-]{1,128}"))
"""For servers of which nothing is certain."""
# OpenAI takes 128 tools and names of 64 characters.
OPENAI = Rules(re.compile(r"[a-zA-Z0-9_-]{1,64}"), 128)


def check(prompt: Prompt, rules: Rules) -> None:
    """Look at the choice among the tools and at the form of the answer.

    Raises:
        LLMBadRequest: a tool must be called that is not there; metadata has its name.
        CapabilityMissing: the vendor has no such form of answers.
    """
    choice = prompt.tool_choice
    names = [tool.name for tool in prompt.tools]
    if choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL and choice.name not in names:
        raise LLMBadRequest(
            f"tool {choice.name!r} must be called but is not among the tools; attach it or choose another",
            tool=choice.name,
        )
    kind = prompt.settings.response_format.WhichOneof("format") or "text"
    if kind not in rules.forms:
        raise CapabilityMissing(
            f"the vendor has no response_format {kind!r}; use one of {sorted(rules.forms)}", response_format=kind
        )
