"""One class name has one meaning."""

from __future__ import annotations

import ast
import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = ("libs/protos/", "/migrations/versions/")
# What reads a vendor's stream is to be one Protocol; a name leaves this set for good.
STILL_TWICE = {"StreamReader"}


def classes() -> dict[str, list[str]]:
    """Return the places of each class of the product, by its name."""
    listed = subprocess.run(["git", "ls-files", "*/src/*.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    found = defaultdict(list)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not any(part in name for part in LEFT_OUT):
            for node in ast.walk(ast.parse((ROOT / name).read_text())):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(name)
    return found


def test_no_class_name_has_two_meanings():
    twice = {name: places for name, places in classes().items() if len(places) > 1}

    assert {name: places for name, places in twice.items() if name not in STILL_TWICE} == {}
    assert twice.keys() >= STILL_TWICE, "take what is there once from the set"
