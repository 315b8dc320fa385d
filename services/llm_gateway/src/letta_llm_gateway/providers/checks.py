"""What is certain to be refused is refused before it is sent, with the name of what to change."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from letta.llm.v1.generation_service_pb2 import Prompt, ToolChoiceMode
from letta_common.errors import CapabilityMissing, LLMBadRequest

Json = dict[str, Any]
_ANY = re.compile(r"\S(.*\S)?")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a vendor's reference says of tools and forms of answers."""

    name: re.Pattern[str] = _ANY
    most_tools: int = 0
    """0 is any number."""
    forms: frozenset[str] = frozenset({"text", "json_object", "json_schema"})


ANY = Rules()
"""For servers of which nothing is certain."""
OPENAI = Rules(re.compile(r"[a-zA-Z0-9_-]{1,64}"), 128)
ANTHROPIC = Rules(re.compile(r"[a-zA-Z0-9_-]{1,128}"), forms=frozenset({"text", "json_schema"}))
GOOGLE = Rules(re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}"), 512)
BEDROCK = Rules(re.compile(r"[a-zA-Z0-9_-]{1,64}"), forms=frozenset({"text", "json_schema"}))


def check(prompt: Prompt, form: Json, rules: Rules) -> None:
    """Look at tools, the choice among them and the form of the answer.

    Raises:
        LLMBadRequest: a tool cannot be sent so; metadata has its name.
        CapabilityMissing: the vendor has no such form of answers.
    """
    names = [tool.name for tool in prompt.tools]
    for name in names:
        if not rules.name.fullmatch(name):
            raise _refused(name, f"its name must match {rules.name.pattern}; rename it")
    if len(set(names)) < len(names):
        [(name, _)] = Counter(names).most_common(1)
        raise _refused(name, "two tools have this name; rename or detach one")
    if rules.most_tools and len(names) > rules.most_tools:
        raise LLMBadRequest(
            f"{len(names)} tools are more than the vendor takes, {rules.most_tools}; detach some",
            tools=str(len(names)), most_tools=str(rules.most_tools),
        )  # fmt: skip
    choice = prompt.tool_choice
    if choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL and choice.name not in names:
        raise _refused(choice.name, "it must be called but is not among the tools; attach it or choose another")
    kind = form.get("type", "text")
    if kind not in rules.forms:
        raise CapabilityMissing(
            f"the vendor has no response_format {kind!r}; use one of {sorted(rules.forms)}", response_format=str(kind)
        )
    if kind == "json_schema" and not isinstance((form.get("json_schema") or {}).get("schema"), dict):
        raise LLMBadRequest("response_format json_schema has no json_schema.schema, an object; add it", field="schema")


def _refused(tool: str, why: str) -> LLMBadRequest:
    return LLMBadRequest(f"tool {tool!r} cannot be sent: {why}", tool=tool)
