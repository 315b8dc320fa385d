"""JSDoc: what a function does and what each parameter means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tree_sitter import Node

from letta_tool_schemas.typescript.trees import text

_TAG = re.compile(r"^@(?P<tag>\w+)\s*(?P<rest>.*)$")
_PARAMETER = re.compile(
    r"^(?:\{[^}]*\}\s*)?(?:\[(?P<optional>[\w$.]+)[^\]]*\]|(?P<name>[\w$.]+))\s*(?:[-–:]\s*)?(?P<text>.*)$"
)
_PARAMETERS = {"param", "arg", "argument", "property", "prop"}
_DESCRIPTIONS = {"description", "desc", "summary"}
_KEPT = {"example", "remarks"}


@dataclass(frozen=True, slots=True)
class Comment:
    """The parts of a comment that a schema is made of. Members of a parameter are named `parameter.member`."""

    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_comment(comment: str) -> Comment:
    """Read a block or line comment."""
    description: list[str] = []
    parameters: dict[str, list[str]] = {}
    target: list[str] = description
    for line in _lines(comment):
        found = _TAG.match(line)
        if found is None:
            target.append(line)
            continue
        target = _target(found["tag"], found["rest"], description, parameters)
    joined = {name: " ".join(part.strip() for part in parts if part.strip()) for name, parts in parameters.items()}
    return Comment("\n".join(description).strip(), joined)


def _target(tag: str, rest: str, description: list[str], parameters: dict[str, list[str]]) -> list[str]:
    """Return where the lines after a tag go."""
    if tag in _DESCRIPTIONS or tag in _KEPT:
        description.append(rest)
        return description
    named = _PARAMETER.match(rest) if tag in _PARAMETERS else None
    if named is None:
        return []
    found = parameters.setdefault(named["optional"] or named["name"], [])
    found.append(named["text"])
    return found


def comment_before(node: Node) -> Comment:
    """Return the comment right before a declaration or a member; for an overloaded function that of its first one."""
    before = node.prev_named_sibling
    # The comment stands above the first signature, and the implementation comes last.
    while before is not None and _is_overload(before):
        before = before.prev_named_sibling
    if before is None or before.type != "comment" or not text(before).startswith(("/**", "//")):
        return Comment()
    if text(before).startswith("//") and _follows_code(before):
        return Comment()
    lines = [before]
    while text(lines[0]).startswith("//") and _continues(lines[0]):
        earlier = lines[0].prev_named_sibling
        if earlier is None:
            break
        lines.insert(0, earlier)
    return read_comment("\n".join(map(text, lines)))


def _follows_code(line: Node) -> bool:
    """Say whether a comment stands behind something else on its line, and so belongs to that."""
    earlier = line.prev_sibling
    return earlier is not None and earlier.end_point.row == line.start_point.row


def _continues(line: Node) -> bool:
    earlier = line.prev_named_sibling
    return (
        earlier is not None
        and earlier.type == "comment"
        and text(earlier).startswith("//")
        and earlier.end_point.row + 1 == line.start_point.row
        and not _follows_code(earlier)
    )


def _is_overload(node: Node) -> bool:
    return node.type == "function_signature" or (
        node.type == "export_statement" and any(child.type == "function_signature" for child in node.children)
    )


def _lines(comment: str) -> list[str]:
    if comment.startswith("//"):
        return [line.strip().lstrip("/").strip() for line in comment.splitlines()]
    inner = comment.removeprefix("/**").removeprefix("/*").removesuffix("*/")
    return [re.sub(r"^\s*\*? ?", "", line).rstrip() for line in inner.splitlines()]
