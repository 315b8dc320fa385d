"""What the rules of the agent say to other services is said in the messages of their contracts, and each thing once."""

from __future__ import annotations

import ast
from pathlib import Path

AGENT = Path(__file__).parents[2] / "services/agent/src/letta_agent"
PEERS = AGENT / "domain/peers"


def others(file: Path) -> list[str]:
    """Return the classes and functions of a file that are no Protocols."""
    made = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [
        node.name
        for node in made
        if not (isinstance(node, ast.ClassDef) and [getattr(base, "id", "") for base in node.bases] == ["Protocol"])
    ]


def fields() -> dict[str, set[str]]:
    """Return the classes of the agent service, and the names of what each declares."""
    found: dict[str, set[str]] = {}
    for file in AGENT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                declared = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
                found[node.name] = {target.id for target in declared if isinstance(target, ast.Name)}
    return found


def test_peers_are_protocols_and_nothing_else():
    found = {file.name: others(file) for file in PEERS.glob("*.py")}

    assert {"memory.py", "models.py", "tools.py"} < set(found)
    assert {name: left for name, left in found.items() if left} == {}


def test_one_key_says_which_run_in_which_conversation_under_which_fence():
    carriers = {name for name, has in fields().items() if "conversation_id" in has and has & {"run_id", "fence"}}

    assert carriers == {"RunKey"}


def test_tokens_are_counted_in_the_message_of_the_contract():
    counts = {"cached_input_tokens", "cache_write_tokens", "reasoning_tokens"}

    assert [name for name, has in fields().items() if has & counts] == []
