"""What every process needs once exists once: one machine for background work."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for root in ("libs", "services", "cli") for path in (ROOT / root).rglob("src/letta_*/**/*.py"))
PAUSES = {"sleep", "wait_for", "timeout"}
# Writers of batches, which wait for rows.
WRITERS = {
    "services/agent/src/letta_agent/domain/journal/event_writer.py",
    "services/tools/src/letta_tools/store/executions.py",
}


def test_background_work_is_periodic():
    endless = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.While) and is_endless(node)
    }

    assert endless == WRITERS


def is_endless(loop: ast.While) -> bool:
    """Say whether a loop pauses again and again and nothing in it ends it."""
    ends = any(isinstance(node, ast.Return | ast.Break | ast.Raise | ast.Yield) for node in ast.walk(loop))
    return isinstance(loop.test, ast.Constant) and not ends and bool(PAUSES & set(called(loop)))


def called(loop: ast.While) -> Iterator[str]:
    for node in ast.walk(loop):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr
