"""What the system prompt says of the rules of tools."""

from __future__ import annotations

from letta.agent.v1.tool_rule_pb2 import TerminalToolRule, ToolRule
from letta_agent.domain.toolcalls.rules import ToolRules


def test_a_rule_is_told_in_the_words_of_its_template():
    own = TerminalToolRule(tool_name=r"say\1", prompt_template="Use {{ tool_name }} or {{tool_name}} last.")
    plain = TerminalToolRule(tool_name="roll", prompt_template="")
    rules = ToolRules([ToolRule(exit_loop=rule) for rule in (own, plain)])

    assert rules.described() == [r"Use say\1 or say\1 last.", "- roll ends your turn."]
