"""What crosses a service is its message in every layer: dataclasses that repeat one only become fewer."""

from __future__ import annotations

import pytest

from scripts.mirrors import mirrors

HELD = {
    "libs/common": 1,
    "libs/sandbox": 2,
    "services/agent": 11,
    "services/llm_gateway": 18,
    "services/tools": 5,
}
"""How many are left in each package. The identity of callers and libraries of general use have no wire of their own."""
FOUND = mirrors()


@pytest.mark.parametrize("package", sorted({each.package for each in FOUND} | {*HELD}))
def test_a_package_repeats_no_more_messages_than_before(package: str) -> None:
    found = [f"{each.place} repeats {each.message}" for each in FOUND if each.package == package]
    assert len(found) <= HELD.get(package, 0), "use the message itself:\n" + "\n".join(found)
