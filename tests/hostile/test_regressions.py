"""The public weaknesses of the retired server, each attacked again on both tiers as root and as an ordinary user.

The whole suite with its controls runs by `make hostile`.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile.launches import ORDINARY_USER, public_interpreter, start
from hostile.suite import ATTACKS

WEAKNESSES = ("CVE-2025-51482", "CVE-2025-6101", "CVE-2026-4965", "CVE-2026-4964", "CVE-2024-39025")
USERS = [0, ORDINARY_USER] if os.getuid() == 0 else [os.getuid()]


@pytest.fixture(params=[(tier, user) for tier in ("namespace", "landlock") for user in USERS], ids=str)
def attack(request):
    """Run the attacks with a text in their name; return those that got through."""
    tier, user = request.param

    def attack(part: str) -> list[dict]:
        lines = start("hostile.sessions", [tier, public_interpreter(), "none", part], user)
        assert lines, f"no attack is named {part}"
        return [line for line in lines if not line["contained"]]

    return attack


def test_names_are_unique_and_many():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 43


def test_every_weakness_has_an_attack():
    assert all(any(name in attack.name for attack in ATTACKS) for name in WEAKNESSES)


def test_cve_2025_51482_tool_source_runs_no_commands(attack):
    assert attack("CVE-2025-51482") == []


def test_cve_2025_6101_and_cve_2026_4965_nothing_of_a_tool_is_evaluated_outside(attack):
    assert attack("CVE-2025-6101") == []


def test_cve_2026_4964_addresses_of_files_and_local_servers_are_out_of_reach(attack):
    assert attack("CVE-2026-4964") == []


def test_cve_2024_39025_a_call_sees_nothing_of_other_tenants(attack):
    assert attack("CVE-2024-39025") == []


def test_arguments_in_arrays_and_objects_stay_arguments(attack):
    assert attack("text that is code") == []


@pytest.mark.skipif(os.getuid() != 0, reason="controls need root, to map ids of nobody")
@pytest.mark.parametrize("part", [*WEAKNESSES, "text that is code"])
def test_without_isolation_the_same_attacks_get_through(part):
    lines = start("hostile.controls", [part], 0)

    assert lines, f"no attack is named {part}"
    assert [line["name"] for line in lines if not line["hit"]] == []
