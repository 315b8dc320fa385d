"""Each guarantee of the page on isolation names what holds it, and all that is named is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "libs/sandbox/README.md"
sys.path.insert(0, str(TESTS))

from hostile import files, kernels, networks  # noqa: E402
from hostile.suite import BY_NAME  # noqa: E402


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of the table of guarantees with what holds each."""
    table = text.partition("## Guarantees")[2].partition("\n\nNot covered")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    return {line[0]: [name.strip() for name in line[3].split("; ")] for line in lines[1:]}


def missing(names: list[str]) -> list[str]:
    """Return those of these attacks and tests that are not there."""
    return [name for name in names if not (_is_test(name) if name.startswith("`") else name in BY_NAME)]


def _is_test(name: str) -> bool:
    found = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", name)
    if found is None:
        return False
    files = list(TESTS.rglob(found[1]))
    return len(files) == 1 and re.search(rf"^(async )?def {found[2]}\(", files[0].read_text(), re.M) is not None


ROWS = rows(PAGE.read_text())


def test_the_table_is_read_whole():
    table = PAGE.read_text().partition("## Guarantees")[2].partition("\n\nNot covered")[0]

    assert len(ROWS) == table.count("\n| ") - 1 >= 16


@pytest.mark.parametrize("guarantee", list(ROWS))
def test_each_guarantee_is_held_by_tests_that_exist(guarantee):
    assert ROWS[guarantee], "nothing holds it"
    assert missing(ROWS[guarantee]) == []


def test_a_row_without_a_test_or_with_one_that_is_not_there_is_noticed():
    page = "## Guarantees\n| guarantee | N | L | held by |\n|---|---|---|---|\n| a | x | y | {} |\n\nNot covered"
    for name in ("", "an attack nobody wrote", "`test_calls.py::test_nothing`", "`test_nowhere.py::test_x`", "`x`"):
        assert missing(rows(page.format(name))["a"]) == [name]

    assert missing(rows(page.format("fork bomb; `test_calls.py::test_usage_is_measured`"))["a"]) == []


def test_every_attack_on_files_the_network_and_the_kernel_holds_some_guarantee():
    named = {name for names in ROWS.values() for name in names}

    assert [each.name for kind in (files, networks, kernels) for each in kind.ATTACKS if each.name not in named] == []
