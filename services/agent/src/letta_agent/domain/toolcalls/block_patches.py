"""Patches that a model writes for its memory: hunks for one block, or sections about several blocks."""

from __future__ import annotations

from collections.abc import Iterator

from letta.memory.v1 import context_service_pb2 as memory_pb2

_ADD, _DELETE, _UPDATE, _MOVE = "*** Add Block:", "*** Delete Block:", "*** Update Block:", "*** Move to:"
_DESCRIPTION = "Description:"
Edit = memory_pb2.EditBlockRequest
"""An edit of a block; whose it is, and in which run, is filled in when it is made."""


class PatchError(Exception):
    """A patch cannot be read; the message says what is wrong."""


def edits_of(label: str, patch: str) -> list[tuple[Edit, str]]:
    """Return the edits that a patch asks for, each with what to report. Raises PatchError."""
    lines = patch.splitlines()
    if not any(line.startswith("***") for line in lines):
        if not label:
            raise PatchError("a patch without section headers needs the label of a block")
        return list(_hunks(label, lines))
    return [edit for section in _sections(lines) for edit in _section(section)]


def _sections(lines: list[str]) -> list[list[str]]:
    sections: list[list[str]] = []
    for line in lines:
        if line.startswith((_ADD, _DELETE, _UPDATE)):
            sections.append([line])
        elif line.startswith(("*** Begin Patch", "*** End Patch")):
            continue
        elif sections:
            sections[-1].append(line)
        elif line.strip():
            raise PatchError(f"expected a section header, found: {line}")
    return sections


def _section(section: list[str]) -> Iterator[tuple[Edit, str]]:
    header, body = section[0], section[1:]
    label = header.partition(":")[2].strip()
    if not label:
        raise PatchError(f"the header names no block: {header}")
    if header.startswith(_DELETE):
        yield Edit(label=label, delete=memory_pb2.DeleteEdit()), f"Detached block '{label}'"
    elif header.startswith(_ADD):
        described = [line.removeprefix(_DESCRIPTION).strip() for line in body if line.startswith(_DESCRIPTION)]
        text = "\n".join(line[1:] for line in body if line.startswith("+"))
        made = memory_pb2.CreateEdit(value=text, description="\n".join(described))
        yield Edit(label=label, create=made), f"Added block '{label}'"
    else:
        moves = [line.partition(":")[2].strip() for line in body if line.startswith(_MOVE)]
        yield from _hunks(label, [line for line in body if not line.startswith(_MOVE)])
        for new in moves:
            yield Edit(label=label, rename=memory_pb2.RenameEdit(label=new)), f"Renamed block '{label}' to '{new}'"


def _hunks(label: str, lines: list[str]) -> Iterator[tuple[Edit, str]]:
    hunk: list[str] = []
    # The mark at the end closes the last hunk as any other one.
    for line in [*lines, "@@"]:
        if not line.startswith("@@"):
            hunk.append(line)
            continue
        if any(line.startswith(("+", "-")) for line in hunk):
            yield _hunk(label, hunk), f"Updated block '{label}'"
        hunk = []


def _hunk(label: str, lines: list[str]) -> Edit:
    old, new = [], []
    for line in lines:
        mark, text = line[:1], line[1:]
        if mark not in {"", " ", "+", "-"}:
            raise PatchError(f"a line of a patch begins with a space, + or -: {line}")
        if mark != "+":
            old.append(text)
        if mark != "-":
            new.append(text)
    # Nothing to find: the new lines go to the end of the block.
    if not any(old):
        text = "\n".join(text for text in new if text)
        return Edit(label=label, insert=memory_pb2.InsertEdit(text=text, line=-1))
    return Edit(label=label, replace=memory_pb2.ReplaceEdit(old_text="\n".join(old), new_text="\n".join(new)))
