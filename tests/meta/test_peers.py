"""What the rules of the agent need of other services is said in the messages of those services' contracts."""

from __future__ import annotations

import ast
from pathlib import Path

PEERS = Path(__file__).parents[2] / "services/agent/src/letta_agent/domain/peers"


def others(file: Path) -> list[str]:
    """Return the classes and functions of a file that are no Protocols."""
    made = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [
        node.name
        for node in made
        if not (isinstance(node, ast.ClassDef) and [getattr(base, "id", "") for base in node.bases] == ["Protocol"])
    ]


def test_peers_are_protocols_and_nothing_else():
    found = {file.name: others(file) for file in PEERS.glob("*.py")}

    assert {"memory.py", "models.py", "tools.py"} < set(found)
    assert {name: left for name, left in found.items() if left} == {}
