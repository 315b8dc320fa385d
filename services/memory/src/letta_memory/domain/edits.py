"""The edits that memory tools make on a block."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Append:
    """Append a line."""

    content: str


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace text: every occurrence, or the only one."""

    old_text: str
    new_text: str
    all_occurrences: bool = False


@dataclass(frozen=True, slots=True)
class Insert:
    """Insert lines after a line: 0 for the top, -1 for the end."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Rethink:
    """Replace the whole value."""

    value: str


@dataclass(frozen=True, slots=True)
class Create:
    """Make a block and attach it, or replace the value of the one that has the label."""

    value: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """Detach the block."""


@dataclass(frozen=True, slots=True)
class Rename:
    """Give the block another label or description."""

    label: str = ""
    description: str | None = None


Edit = Append | Replace | Insert | Rethink | Create | Delete | Rename


@dataclass(frozen=True, slots=True)
class BlockEdit:
    """An edit that a run makes, and the key under which it is made once."""

    agent_id: str
    conversation_id: str
    fence: int
    key: str
    label: str
    edit: Edit

    def digest(self) -> bytes:
        """Return what tells this edit from another under the same key."""
        return hashlib.sha256(f"{self.agent_id}\0{self.label}\0{self.edit!r}".encode()).digest()[:16]
