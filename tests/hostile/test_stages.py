"""What packages do as they are imported, for all calls of a tenant at once, they do with no more rights than a tool."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile.imports import NAMES
from hostile.launches import ORDINARY_USER, public_interpreter, start

SOME = (
    "read the service's own source",
    "the service's environment",
    "write outside of the scratch directory",
    "TCP to a service on loopback",
    "ptrace",
    "a shell",
)  # all of them take a minute, by `make hostile`


@pytest.fixture(scope="module", params=[0, ORDINARY_USER] if os.getuid() == 0 else [os.getuid()])
def found(request):
    return {line["when"]: line for line in start("hostile.imports", [public_interpreter()], request.param)}


@pytest.mark.parametrize("when", ["import", "fork", "call"])
def test_a_package_gets_nowhere_when_it_is_loaded_when_a_call_is_forked_and_in_the_call(found, when):
    line = found[when]

    assert (line["done"], line["hits"], line["damage"]) == (["done"], [], []), line


@pytest.mark.skipif(os.getuid() != 0, reason="controls need root, to map ids of nobody")
def test_the_same_attacks_hit_where_nothing_holds_them():
    lines = {line["name"]: line["hit"] for line in start("hostile.controls", list(SOME), 0)}

    assert lines.keys() >= set(SOME) <= set(NAMES)
    assert all(lines.values()), lines
