"""The processes that `letta` starts, as `/proc` shows them."""

from __future__ import annotations

import re
from pathlib import Path


def origins(parent: int) -> list[int]:
    """Return the process that the services fork from; two while one ends."""
    return [pid for pid, _ in forked_from(parent) if "forkserver" in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def forked_from(parent: int) -> list[tuple[int, str]]:
    """Return the children of a process with what they call themselves."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                _, name, rest = re.split(r" \(|\) ", (entry / "stat").read_text(), maxsplit=2)
            except OSError:
                continue
            if int(rest.split()[1]) == parent:
                found.append((int(entry.name), name))
    return found


def descendants(pid: int) -> list[int]:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [below for child in map(int, words) for below in (child, *descendants(child))]


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
