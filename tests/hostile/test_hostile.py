"""Every attack as a test, where this process may start namespaces: one session a tier, as root and as a user."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile.launches import ORDINARY_USER, public_interpreter, start
from hostile.suite import ATTACKS

USERS = [0, ORDINARY_USER] if os.getuid() == 0 else [os.getuid()]


def test_names_are_unique_and_many():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 43


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("tier", ["namespace", "landlock"])
def test_every_attack_is_contained(tier, user):
    lines = start("hostile.sessions", [tier, public_interpreter()], user)

    assert len(lines) == len(ATTACKS)
    assert [line for line in lines if not line["contained"]] == []
