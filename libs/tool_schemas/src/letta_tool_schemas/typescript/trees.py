"""Syntax trees of TypeScript."""

from __future__ import annotations

import time
from collections.abc import Iterator

import tree_sitter_typescript
from tree_sitter import Language, Node, Parser

from letta_tool_schemas.errors import SourceInvalid

MAX_BYTES = 256 << 10
# Of the processor for this thread, so that a busy host refuses no more than an idle one.
_SECONDS = 2.0
# The parser asks `is_late` between parts.
_PART = 1 << 14
_LANGUAGE = Language(tree_sitter_typescript.language_typescript())


def parse(source: str) -> Node:
    """Return the tree of a module. Raises SourceInvalid naming the line of the first mistake."""
    if "\0" in source:
        raise SourceInvalid("the source contains null bytes")
    data = source.encode(errors="replace")
    if len(data) > MAX_BYTES:
        raise SourceInvalid(f"the source has {len(data)} bytes; {MAX_BYTES} are allowed for TypeScript")
    root = _tree(data)
    if root.has_error:
        wrong = next((node for node in walk(root) if node.is_error or node.is_missing), root)
        raise invalid(wrong, "this is no TypeScript" if wrong.is_error else f"`{wrong.type}` is missing")
    return root


def _tree(data: bytes) -> Node:
    """Parse for a limited time: the parser takes long to find its way through some nonsense."""
    end = time.thread_time() + _SECONDS

    def part(offset: int, _point: object) -> bytes:
        return data[offset : offset + _PART]

    def is_late(_offset: int, _has_error: bool) -> bool:
        return time.thread_time() > end

    try:
        return Parser(_LANGUAGE).parse(part, progress_callback=is_late).root_node
    except ValueError as error:
        raise SourceInvalid("the source takes too long to read; it is probably no TypeScript") from error


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, in the order of the source."""
    # No recursion: a source of 256 KiB may nest far deeper than Python calls.
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def invalid(node: Node, why: str) -> SourceInvalid:
    """Return the error that names the line of a node."""
    line = str(node.start_point.row + 1)
    return SourceInvalid(f"line {line}: {why}", line=line)


def text(node: Node | None) -> str:
    """Return the source of a node."""
    return (node.text or b"").decode() if node is not None else ""


def has(node: Node, *tokens: str) -> bool:
    """Say whether one of these tokens is directly below a node."""
    return any(child.type in tokens for child in node.children)
