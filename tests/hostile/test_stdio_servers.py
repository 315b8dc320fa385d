"""MCP servers that are programs attack their host and each other, on both tiers, as root and as an ordinary user.

`python -m hostile.stdio_sessions TIER PYTHON` runs all attacks.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile.launches import ORDINARY_USER, public_interpreter, start
from hostile.stdio_attacks import ATTACKS, OWN_NAMES

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


@pytest.mark.parametrize("part", ["own", "read the service's secret", "TCP to a service", "the service's environment"])
def test_a_server_gets_nowhere(attack, part):
    assert attack(part) == []


def test_descriptors_of_the_service_are_not_there(attack):
    assert attack("inherited descriptors") == []


@pytest.mark.skipif(os.getuid() != 0, reason="controls need root, to map ids of nobody")
@pytest.mark.parametrize("part", ["own", "read the service's secret", "TCP to a service", "the service's environment"])
def test_without_confinement_every_one_of_them_hits(part):
    lines = start("hostile.stdio_controls", [part], 0)

    assert [line["name"] for line in lines if not line["hit"]] == []
    assert len(lines) == (len(OWN_NAMES) if part == "own" else 1)
