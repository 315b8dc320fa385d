"""Path templates of `google.api.http` and the trie that finds the one a path matches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote

Target = TypeVar("Target")


class TemplateError(Exception):
    """A path template cannot be read."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A part of the path that fills a field: the segments from `start` to `end`, or to the last without an `end`."""

    path: tuple[str, ...]
    start: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Template:
    """A path template: literals, `*` for one segment, `**` for the rest, and what follows the last colon."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str = ""

    def read(self, segments: list[str]) -> list[tuple[tuple[str, ...], str]]:
        """Return the fields that a matching path fills. Raises UnicodeDecodeError for a path that is no UTF-8."""
        return [
            (each.path, "/".join(unquote(segment, errors="strict") for segment in segments[each.start : each.end]))
            for each in self.variables
        ]


def parse(text: str) -> Template:
    """Parse a template such as `/v1/{name=shelves/*}/books:read`. Raises TemplateError."""
    if not text.startswith("/"):
        raise TemplateError(f"{text!r} does not begin with a slash")
    rest, verb = text, ""
    colon = text.rfind(":")
    # A colon inside of braces or before the last slash belongs to a segment.
    if colon > max(text.rfind("/"), text.rfind("}")):
        rest, verb = text[:colon], text[colon + 1 :]
    segments: list[str] = []
    variables: list[Variable] = []
    for piece in _pieces(rest.strip("/"), text):
        if not piece.startswith("{"):
            segments.append(piece)
            continue
        name, _, pattern = piece[1:-1].partition("=")
        inner = (pattern or "*").split("/")
        start = len(segments)
        segments.extend(inner)
        variables.append(Variable(tuple(name.split(".")), start, None if "**" in inner else len(segments)))
    if "**" in segments[:-1]:
        raise TemplateError(f"{text!r} has `**` before its end")
    return Template(text, tuple(segments), tuple(variables), verb)


def _pieces(path: str, text: str) -> Iterator[str]:
    """Split at the slashes outside of braces."""
    piece, depth = "", 0
    for char in path:
        depth += (char == "{") - (char == "}")
        if char == "/" and depth == 0:
            yield piece
            piece = ""
        else:
            piece += char
    if depth:
        raise TemplateError(f"{text!r} has an open brace")
    if piece:
        yield piece


@dataclass(slots=True)
class _Node(Generic[Target]):
    literals: dict[str, _Node[Target]] = field(default_factory=dict)
    one: _Node[Target] | None = None
    rest: _Node[Target] | None = None
    ends: dict[str, dict[str, tuple[Template, Target]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PathMatch(Generic[Target]):
    """What a path matched, and the fields it fills."""

    target: Target
    template: Template
    segments: list[str]


@dataclass(frozen=True, slots=True)
class Refused:
    """The path exists for other verbs only; `allowed` is empty when it does not exist at all."""

    allowed: tuple[str, ...]


class Router(Generic[Target]):
    """Finds the target of a verb and a path: literals win over variables, a slash at the end does not matter."""

    def __init__(self) -> None:
        self._root: _Node[Target] = _Node()
        self._verbs: set[str] = set()

    def add(self, method: str, template: Template, target: Target) -> bool:
        """Add a target; say whether the verb and path were free."""
        node = self._root
        for segment in template.segments:
            if segment == "**":
                node.rest = node.rest or _Node()
                node = node.rest
            elif segment == "*":
                node.one = node.one or _Node()
                node = node.one
            else:
                node = node.literals.setdefault(unquote(segment), _Node())
        ends = node.ends.setdefault(template.verb, {})
        # The first one stays, and the caller tells the second as a problem of its server.
        if method in ends:
            return False
        ends[method] = (template, target)
        self._verbs.add(template.verb)
        return True

    def find(self, method: str, path: str) -> PathMatch[Target] | Refused:
        """Find the target of a path that is still percent-encoded."""
        path = path.removeprefix("/").removesuffix("/")
        segments = path.split("/") if path else []
        allowed: set[str] = set()
        for verb, parts in self._readings(segments):
            for ends in _matches(self._root, parts, 0, verb):
                found = ends.get(method)
                if found is not None:
                    return PathMatch(found[1], found[0], parts)
                allowed.update(ends)
        return Refused(tuple(sorted(allowed)))

    def _readings(self, segments: list[str]) -> Iterator[tuple[str, list[str]]]:
        if segments and ":" in segments[-1]:
            head, _, verb = segments[-1].rpartition(":")
            # Only a verb that some template has; anything else behind a colon is part of an id.
            if verb in self._verbs:
                yield verb, [*segments[:-1], head]
        # The last segment may simply contain a colon, as ids and handles do.
        yield "", segments


def _matches(
    node: _Node[Target], segments: list[str], index: int, verb: str
) -> Iterator[dict[str, tuple[Template, Target]]]:
    if index == len(segments):
        if verb in node.ends:
            yield node.ends[verb]
    else:
        segment = segments[index]
        # Compared as it is written first: unquoting costs more, and most paths have nothing to unquote.
        following = node.literals.get(segment) or (node.literals.get(unquote(segment)) if "%" in segment else None)
        if following is not None:
            yield from _matches(following, segments, index + 1, verb)
        if node.one is not None and segment:
            yield from _matches(node.one, segments, index + 1, verb)
    if node.rest is not None and verb in node.rest.ends:
        yield node.rest.ends[verb]
