"""A fixture that holds in several files is told once, in the `conftest.py` above them or in `tests/support`."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def fixtures() -> Iterator[tuple[str, str]]:
    """Yield each fixture's text, without what describes it, and where it is."""
    texts = ((path, path.read_text()) for path in TESTS.rglob("*.py"))
    for path, text in ((path, text) for path, text in texts if "pytest.fixture" in text):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_fixture(node):
                node.body = node.body[1:] if ast.get_docstring(node) else node.body
                node.returns = None
                for argument in node.args.args:
                    argument.annotation = None
                yield ast.unparse(node), f"{path.relative_to(TESTS)}: {node.name}"


def is_fixture(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(each).startswith("pytest.fixture") for each in node.decorator_list)


def test_no_fixture_is_told_twice():
    places = defaultdict(list)
    for text, place in fixtures():
        places[text].append(place)

    assert len(places) > 100
    assert [found for found in places.values() if len(found) > 1] == []
