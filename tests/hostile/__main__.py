"""Runs the hostile suite: controls, then each tier as each user. The last line is JSON.

python -m hostile [--only TEXT]
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from hostile import containers
from hostile.launches import ORDINARY_USER, public_interpreter, start
from hostile.suite import ATTACKS


def _controls() -> dict[str, Any]:
    if os.getuid() != 0:
        return {"skipped": "controls need root, to map ids of nobody"}
    lines = start("hostile.controls", [], 0)
    missed = [line["name"] for line in lines if not line["hit"]]
    for line in lines:
        _say(f"control  {'hits  ' if line['hit'] else 'MISSES'}  {line['name']}: {'; '.join(line['how'])[:150]}")
    return {"hit": len(lines) - len(missed), "total": len(ATTACKS), "missed": missed}


# How each tier is attacked: on a host, by calls that may reach a listed host, by calls from a process that has packages
# loaded, and in a container with Docker's defaults.
_ROUNDS = (
    ("namespace", "none", "host"),
    ("landlock", "none", "host"),
    ("namespace", "listed", "host"),
    ("landlock", "listed", "host"),
    ("namespace", "loaded", "host"),
    ("landlock", "none", "docker"),
)


def _tier(tier: str, kind: str, around: str, user: int) -> dict[str, Any]:
    if around == "docker" and not containers.is_possible():
        return {"skipped": "the kernel's headers are not installed"}
    lines = start("hostile.sessions", [tier, public_interpreter(), kind], user, around)
    where = _name(tier, kind, around, user)
    open_ones = [line["name"] for line in lines if not line["contained"]]
    for line in lines:
        state = "contained" if line["contained"] else "OPEN     "
        _say(f"{where}  {state}  {line['status']:12} {line['name']} {'; '.join(line['problems'])[:300]}")
    return {"contained": len(lines) - len(open_ones), "total": len(ATTACKS), "open": open_ones}


def _name(tier: str, kind: str, around: str, user: int) -> str:
    parts = [tier, "root" if user == 0 else "user"]
    return "/".join([*parts, *[word for word in (kind, around) if word not in {"none", "host"}]])


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run everything; 0 when every control hits and every attack is contained."""
    users = [0, ORDINARY_USER] if os.getuid() == 0 else [os.getuid()]
    report: dict[str, Any] = {"controls": _controls()}
    for user in users:
        for tier, kind, around in _ROUNDS:
            report[_name(tier, kind, around, user)] = _tier(tier, kind, around, user)
    _say(json.dumps(report))
    return int(any(part.get("missed") or part.get("open") for part in report.values()))


if __name__ == "__main__":
    raise SystemExit(main())
