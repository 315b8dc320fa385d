"""A closed set of words is an enum; nothing of the contract is on its way out; what others add to is a string."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from buf.validate import validate_pb2
from letta.common.v1 import actor_pb2
from scripts.contracts import ROOT, read_contracts
from tests.contract.boundary.contracts import Path, all_methods, leaves

CONTRACTS = read_contracts()
STRING = FieldDescriptorProto.TYPE_STRING
# Strings whose comment lists words: vendors add to them (docs/adr/0018-open-and-closed-sets.md).
OPEN = {
    "common.v1.ModelSettings.effort": "handed to the vendor",
    "common.v1.ModelSettings.verbosity": "handed to the vendor",
    "common.v1.Reasoning.reasoning_effort": "handed to the vendor",
    "common.v1.Base64Image.detail": "handed to the vendor",
    "common.v1.LettaImage.detail": "handed to the vendor",
}
_COMPAT = ".letta.compat."
_WORDS = re.compile(r"`[a-z_]+`(?:, `[a-z_]+`)* or `[a-z_]+`")


def strings() -> Iterator[tuple[str, FieldDescriptorProto]]:
    """Yield the string fields of the contract with their names, without those of older clients."""
    for name, message in CONTRACTS.messages.items():
        if name.startswith(_COMPAT):
            continue
        for field in message.field:
            if field.type == STRING:
                yield f"{name}.{field.name}", field


def short(name: str) -> str:
    return name.removeprefix(".letta.")


def test_no_string_is_checked_against_a_list():
    found = set()
    for name, field in strings():
        rules = field.options.Extensions[validate_pb2.field]
        if getattr(rules.string, "in") or getattr(rules.repeated.items.string, "in"):
            found.add(short(name))

    assert not found, "write an enum"


def test_no_comment_lists_the_words_of_a_closed_set():
    found = {short(name) for name, _ in strings() if _WORDS.search(CONTRACTS.field_comments.get(name, ""))}

    assert found == OPEN.keys(), "write an enum, or say in OPEN who adds words to it"


def closed(path: Path) -> bool:
    """Say whether the contract refuses numbers that the enum at the end of a path does not have."""
    field = path[-1]
    rules = field.GetOptions().Extensions[validate_pb2.field]
    if field.containing_type.GetOptions().map_entry:
        rules = path[-2].GetOptions().Extensions[validate_pb2.field].map.values
    elif field.is_repeated:
        rules = rules.repeated.items
    return bool(rules.enum.defined_only or getattr(rules.enum, "in"))


def test_every_enum_that_a_request_holds_is_closed():
    paths = [path for each in all_methods() for path in leaves(each.input_type, FieldDescriptorProto.TYPE_ENUM)]

    assert {path[-1].full_name for path in paths if not closed(path)} == set(), "say `enum.defined_only`"
    assert len({path[-1].full_name for path in paths}) > 80


def test_nothing_is_deprecated():
    files = (ROOT / "proto" / "letta").rglob("*.proto")

    assert not [str(file) for file in files if "compat" not in file.parts and "deprecated = true" in file.read_text()]


def test_scopes_of_methods_are_those_of_keys():
    words = {name.removeprefix("SCOPE_").lower() for name in actor_pb2.Scope.keys()}  # noqa: SIM118
    named = {scope for method in CONTRACTS.methods for scope in method.mapping.scopes}

    assert named <= words - {"unspecified"}
    assert named


def test_a_type_of_provider_says_where_the_types_are_listed():
    told = {short(name): CONTRACTS.field_comments[name] for name, field in strings() if field.name == "provider_type"}

    assert len(told) > 5
    assert not [name for name, comment in told.items() if "ModelService.ListModels" not in comment]
