"""Rules about when an agent may call its tools."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from letta.agent.v1 import tool_rule_pb2
from letta.common.v1.message_pb2 import ToolReturnContent

ToolRule = tool_rule_pb2.ToolRule


@dataclass(frozen=True, slots=True)
class Freedom:
    """What a model may call in a step."""

    allowed: frozenset[str]
    constrained: bool = False
    """Rules took tools away, so the model sees only the allowed ones."""
    required: bool = False
    """The model must call one of them."""


_TOOL_NAME = re.compile(r"\{\{\s*tool_name\s*\}\}")
REFUSED = "[ToolConstraintError]"
"""Begins the result of a call that a rule forbade."""
UNREADABLE = (
    "Error: the call was not executed, because its arguments are no JSON object. Call again with one whole JSON "
    "object; write less if your answer was cut."
)
"""The result of a call whose arguments could not be read."""


class ToolRules:
    """The rules of one agent. A history is what the calls of a run returned so far, in order."""

    def __init__(self, rules: Iterable[ToolRule]) -> None:
        self._by_kind: dict[str, list[Any]] = {}
        for rule in rules:
            kind = rule.WhichOneof("rule") or ""
            self._by_kind.setdefault(kind, []).append(getattr(rule, kind) if kind else rule)

    @property
    def only_approvals(self) -> bool:
        """Say whether no rule but approvals exists, so that several calls in one step are fine."""
        return not set(self._by_kind) - {"requires_approval"}

    def freedom(self, names: Collection[str], history: Sequence[ToolReturnContent]) -> Freedom:
        """Return what may be called next."""
        first = {rule.tool_name for rule in self._of("run_first")} & set(names)
        if first and not history:
            return Freedom(frozenset(first), constrained=True, required=True)
        allowed, required = set(names), False
        followers = self._followers(history)
        if followers is not None:
            allowed, required = allowed & followers, True
        allowed -= self._orphans(history) | self._exhausted(history)
        # A vendor refuses a required call without tools, so with none left nothing is required.
        return Freedom(frozenset(allowed), constrained=allowed != set(names), required=required and bool(allowed))

    def prefilled(self, name: str, history: Sequence[ToolReturnContent]) -> dict[str, Any]:
        """Return the arguments that override the model's in a call."""
        found: dict[str, Any] = {}
        if not history:
            for rule in self._of("run_first"):
                if rule.tool_name == name:
                    found.update(_object(rule.args))
        for rule in self._of("constrain_child_tools"):
            if history and history[-1].name == rule.tool_name:
                for node in rule.child_arg_nodes:
                    if node.name == name:
                        found.update(_object(node.args))
        return found

    def needs_approval(self, name: str) -> bool:
        """Say whether a call of the tool waits for approval."""
        return any(rule.tool_name == name for rule in self._of("requires_approval"))

    def ends(self, names: Sequence[str]) -> bool:
        """Say whether these calls, made in one step, end the run."""
        last = {rule.tool_name for rule in self._of("exit_loop")}
        # Of several calls each has to end the run: the others' returns want to be read.
        return bool(names) and all(name in last for name in names)

    def continues(self, names: Sequence[str]) -> bool:
        """Say whether one of these calls asks for another step."""
        going = {rule.tool_name for rule in self._of("continue_loop")}
        going |= {rule.tool_name for rule in self._of("constrain_child_tools")}
        return any(name in going for name in names)

    def missing(self, history: Sequence[ToolReturnContent]) -> list[str]:
        """Return the tools that must still be called before the run may end."""
        rules = self._of("required_before_exit")
        # A call that could not be read was not made.
        made = {call.name for call in history if not call.content.startswith(UNREADABLE)} if rules else ()
        return [rule.tool_name for rule in rules if rule.tool_name not in made]

    def described(self) -> list[str]:
        """Return the rules in words, for the system prompt."""
        return [_wording(rule) or tell(rule) for kind, tell in _WORDS.items() for rule in self._of(kind)]

    def hints(self, name: str, history: Sequence[ToolReturnContent]) -> str:
        """Say which rule keeps a tool from being called now; empty when none does."""
        if name in self._exhausted(history):
            return f" {name} has been called as often as a run may."
        if name in self._orphans(history):
            return f" {name} may be called only right after another tool."
        return ""

    def _of(self, kind: str) -> list[Any]:
        return self._by_kind.get(kind, [])

    def _followers(self, history: Sequence[ToolReturnContent]) -> set[str] | None:
        if not history:
            return None
        last, found = history[-1], None
        for rule in self._of("constrain_child_tools"):
            if rule.tool_name == last.name:
                found = set(rule.children) if found is None else found & set(rule.children)
        for rule in self._of("conditional"):
            if rule.tool_name == last.name:
                child = rule.child_output_mapping.get(last.content.strip(), rule.default_child)
                if child:
                    found = {child} if found is None else found & {child}
                elif rule.require_output_mapping:
                    found = set()
        return found

    def _orphans(self, history: Sequence[ToolReturnContent]) -> set[str]:
        last = history[-1].name if history else ""
        rules = self._of("parent_last_tool")
        here = {child for rule in rules if rule.tool_name == last for child in rule.children}
        return {child for rule in rules for child in rule.children} - here

    def _exhausted(self, history: Sequence[ToolReturnContent]) -> set[str]:
        # The name of the rule is V1's; what it bounds is a run.
        counts = Counter(call.name for call in history)
        rules = self._of("max_count_per_step")
        return {rule.tool_name for rule in rules if counts[rule.tool_name] >= rule.max_count_limit}


def _wording(rule: Any) -> str:
    """Return what the agent's maker says of a rule; empty where they left that to us."""
    words: str = rule.prompt_template
    return _TOOL_NAME.sub(lambda _: rule.tool_name, words)


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}


_WORDS: dict[str, Callable[[Any], str]] = {
    "run_first": lambda rule: f"- Call {rule.tool_name} first.",
    "constrain_child_tools": lambda rule: f"- After {rule.tool_name} call only: {', '.join(rule.children)}.",
    "parent_last_tool": lambda rule: f"- Call {', '.join(rule.children)} only right after {rule.tool_name}.",
    "conditional": lambda rule: f"- What {rule.tool_name} returns decides what you call next.",
    "max_count_per_step": lambda rule: f"- Call {rule.tool_name} at most {rule.max_count_limit} times.",
    "required_before_exit": lambda rule: f"- Call {rule.tool_name} before you finish.",
    "exit_loop": lambda rule: f"- {rule.tool_name} ends your turn.",
    "continue_loop": lambda rule: f"- After {rule.tool_name} you get another step.",
    "requires_approval": lambda rule: f"- {rule.tool_name} waits until a person approves it.",
}
