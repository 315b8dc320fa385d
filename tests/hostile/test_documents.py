"""The page on isolation names every attack, and none that is not there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile.suite import ATTACKS

PAGE = Path(__file__).resolve().parents[2] / "libs/sandbox/README.md"


def test_the_page_names_every_attack():
    told = PAGE.read_text().partition("## Attacks")[2]
    named = [
        name.strip()
        for group in told.split(".\n")
        if "**: " in group
        for name in group.partition("**: ")[2].split("; ")
    ]

    assert sorted(named) == sorted(attack.name for attack in ATTACKS)
