"""What crosses a service is its message in every layer: dataclasses that repeat one only become fewer."""

from __future__ import annotations

import pytest

from scripts.contracts import read_contracts
from scripts.mirrors import mirrors, repeats

HELD: dict[str, int] = {}
"""How many are left in each package."""


def test_no_package_repeats_more_messages_than_before() -> None:
    by_package: dict[str, list[str]] = {}
    for each in mirrors(read_contracts()):
        by_package.setdefault(each.package, []).append(f"{each.place} repeats {each.message}")
    more = {package: places for package, places in by_package.items() if len(places) > HELD.get(package, 0)}

    assert more == {}, "use the message itself"


_ACCOUNT = "name: str; provider_type: str; api_key: str; base_url: str"
SEEDED = {
    "Repeated": ("ListStepsRequest", "agent_id: str; model: str; has_feedback: bool | None; tags: tuple[str, ...]"),
    "Named": ("ListConversationsRequest", "agent_id: str; summary_search: str; order_by: str"),
    "Small": ("RedactedReasoningContent", "data: str"),
    # A larger message has as many of its fields.
    "Smaller": ("IdentityProperty", "key: str; value: str"),
    "Anything": ("", "key: str; value: Any"),
    # What says which one is meant repeats nothing, though requests say it too.
    "Key": ("", "organization_id: str; agent_id: str; conversation_id: str; run_id: str; fence: int"),
    # An object, where the message has its text.
    "Parsed": ("", "name: str; arguments: Json"),
    "Unparsed": ("ToolCall", "name: str; arguments: str"),
    # Open keys that are not printed, and those that are.
    "Hidden": ("", f"{_ACCOUNT}; def __repr__(self): return self.name"),
    "Printed": ("Provider", f"{_ACCOUNT}; def __repr__(self): return self.name + self.api_key"),
    "Open": ("Provider", _ACCOUNT),
    # A row with secrets under seal, which no message may hold.
    "Sealed": ("", "id: str; created_by_id: str; last_updated_by_id: str; version: int; secrets: bytes"),
    # Counts, where a request of the same words has cursors.
    "Counted": ("", "run_id: str; before: int; after: int; limit: int"),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_mirror_is_found_and_a_chance_likeness_is_not(name: str) -> None:
    message, fields = SEEDED[name]
    source = f"Json = dict[str, Any]\n@dataclass\nclass {name}:\n    " + fields.replace("; ", "\n    ")
    assert [found.rpartition(".")[2] for _, found, _, _ in repeats(source, read_contracts())] == [message] * bool(
        message
    )
