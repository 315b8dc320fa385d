"""Syntax trees of TypeScript."""

from __future__ import annotations

from collections.abc import Iterator

import tree_sitter_typescript
from tree_sitter import Language, Node, Parser

from letta_common.errors import ToolSourceInvalid

MAX_BYTES = 256 << 10
_LANGUAGE = Language(tree_sitter_typescript.language_typescript())


def parse(source: str) -> Node:
    """Return the tree of a module. Raises ToolSourceInvalid naming the line of the first mistake."""
    if "\0" in source:
        raise ToolSourceInvalid("the source contains null bytes")
    data = source.encode(errors="replace")
    if len(data) > MAX_BYTES:
        raise ToolSourceInvalid(f"the source has {len(data)} bytes; {MAX_BYTES} are allowed for TypeScript")
    root = Parser(_LANGUAGE).parse(data).root_node
    if root.has_error:
        wrong = next((node for node in walk(root) if node.is_error or node.is_missing), root)
        raise invalid(wrong, "this is no TypeScript" if wrong.is_error else f"`{wrong.type}` is missing")
    return root


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, in the order of the source."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def invalid(node: Node, why: str) -> ToolSourceInvalid:
    """Return the error that names the line of a node."""
    line = str(node.start_point.row + 1)
    return ToolSourceInvalid(f"line {line}: {why}", line=line)


def text(node: Node | None) -> str:
    """Return the source of a node."""
    return (node.text or b"").decode() if node is not None else ""


def has(node: Node, *tokens: str) -> bool:
    """Say whether one of these tokens is directly below a node."""
    return any(child.type in tokens for child in node.children)
