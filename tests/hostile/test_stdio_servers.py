"""MCP servers that are programs attack their host and each other, on both tiers, as root and as an ordinary user.

`python -m hostile.stdio_sessions TIER PYTHON` runs all attacks.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile.launches import ORDINARY_USER, public_interpreter, start
from hostile.stdio_attacks import ATTACKS, CHOSEN

USERS = [0, ORDINARY_USER] if os.getuid() == 0 else [os.getuid()]


@pytest.fixture(params=[(tier, user) for tier in ("namespace", "landlock") for user in USERS], ids=str)
def attack(request):
    """Run the attacks with a text in their name; return those that got through."""
    tier, user = request.param

    def attack(part: str) -> list[dict]:
        lines = start("hostile.stdio_sessions", [tier, public_interpreter(), part], user)
        assert lines, f"no attack is named {part}"
        return [line for line in lines if not line["contained"]]

    return attack


def test_names_are_unique_and_many():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 50
    assert {attack.name for attack in ATTACKS} > CHOSEN


def test_a_server_gets_nowhere(attack):
    assert attack("chosen") == []


@pytest.mark.skipif(os.getuid() != 0, reason="controls need root, to map ids of nobody")
def test_without_confinement_every_one_of_them_hits():
    lines = start("hostile.stdio_controls", ["chosen"], 0)

    assert [line["name"] for line in lines if not line["hit"]] == []
    assert {line["name"] for line in lines} == CHOSEN
