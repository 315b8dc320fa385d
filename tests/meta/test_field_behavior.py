"""The contracts say of each field who writes it, and keep to it."""

from __future__ import annotations

import re
from importlib import import_module

import protovalidate
from google.api.field_behavior_pb2 import (
    IMMUTABLE,
    INPUT_ONLY,
    OPTIONAL,
    OUTPUT_ONLY,
    REQUIRED,
    FieldBehavior,
    field_behavior,
)
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass

from buf.validate import validate_pb2
from letta.jsonmap.v1 import annotations_pb2 as jsonmap
from scripts.contracts import Contracts, read_contracts

CONTRACTS: Contracts = read_contracts()
VIEWS = {
    f".{view.request}" for method in CONTRACTS.methods for view in method.proto.options.Extensions[jsonmap.method].views
}
REQUESTS = {method.proto.input_type for method in CONTRACTS.methods} | VIEWS
RESPONSES = {method.proto.output_type for method in CONTRACTS.methods}
TOGETHER = [{REQUIRED}, {OPTIONAL}, {OUTPUT_ONLY}, {INPUT_ONLY}, {IMMUTABLE}, {REQUIRED, IMMUTABLE}]

# Required where the resource is made, which a rule on the field cannot say: a masked update leaves it out.
REQUIRED_BY_CREATE = {
    ".letta.memory.v1.Block.label",
    ".letta.llm.v1.Provider.name",
    ".letta.llm.v1.Provider.provider_type",
    ".letta.tools.v1.MCPServer.config",
    ".letta.tools.v1.MCPServer.server_name",
    ".letta.memory.v1.Identity.identifier_key",
    ".letta.memory.v1.Identity.identity_type",
    ".letta.memory.v1.Identity.name",
    ".letta.tools.v1.SandboxEnvironmentVariable.key",
}


def _reachable(names: set[str]) -> set[str]:
    """Return the messages that these hold, themselves included."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen and name in CONTRACTS.messages:
            seen.add(name)
            waiting += [field.type_name for field in CONTRACTS.messages[name].field]
    return seen


INPUTS = _reachable(REQUESTS)
RESOURCES = _reachable(RESPONSES) - RESPONSES
MESSAGES = sorted(INPUTS | RESOURCES)


def _behaviour(name: str) -> dict[str, set[FieldBehavior]]:
    """Return what a message says of each of its fields."""
    return {field.name: set(field.options.Extensions[field_behavior]) for field in CONTRACTS.messages[name].field}


def _required_by_rules(name: str) -> set[str]:
    """Return the fields that an empty message is refused for; a oneof is none."""
    empty = GetMessageClass(Default().FindMessageTypeByName(name.removeprefix(".")))()
    paths = [found.proto.field.elements for found in protovalidate.collect_violations(empty)]
    fields = {field.name for field in CONTRACTS.messages[name].field}
    return fields & {path[0].field_name for path in paths if len(path) == 1}


def _load() -> None:
    for file in CONTRACTS.file_names:
        import_module(f"{file.removesuffix('.proto').replace('/', '.')}_pb2")


def test_each_field_says_who_writes_it():
    fields = {f"{name}.{field}": said for name in MESSAGES for field, said in _behaviour(name).items()}

    assert fields
    assert {field: said for field, said in fields.items() if said not in TOGETHER} == {}


def test_what_no_request_holds_is_output_only():
    others = [name for name in MESSAGES if name not in INPUTS]

    assert others
    assert [name for name in others if any(said != {OUTPUT_ONLY} for said in _behaviour(name).values())] == []


def test_what_is_required_is_refused_when_absent():
    _load()
    said = {
        name: {field for field, kinds in _behaviour(name).items() if REQUIRED in kinds and not _by_create(name, field)}
        for name in INPUTS
    }

    assert any(said.values())
    assert said == {name: _required_by_rules(name) for name in INPUTS}


def _by_create(name: str, field: str) -> bool:
    return f"{name}.{field}" in REQUIRED_BY_CREATE


def _one_of(name: str, field: str) -> bool:
    """Say whether a field is one of several of which a request must have one."""
    message = CONTRACTS.messages[name]
    found = next(each for each in message.field if each.name == field)
    if not found.HasField("oneof_index"):
        return False
    return bool(message.oneof_decl[found.oneof_index].options.Extensions[validate_pb2.oneof].required)


def test_what_every_path_holds_is_required():
    lacking = [
        f"{method.full_name}: {field}"
        for method in CONTRACTS.methods
        for field in _in_every_path([path for _, path in method.http])
        if REQUIRED not in _behaviour(method.proto.input_type)[field] and not _one_of(method.proto.input_type, field)
    ]

    assert not lacking


def _in_every_path(paths: list[str]) -> set[str]:
    held = [set(re.findall(r"\{(\w+)[^}]*\}", path)) for path in paths]
    return set.intersection(*held) if held else set()


def test_the_comment_says_the_same():
    words = {"Output only.": OUTPUT_ONLY, "Immutable.": IMMUTABLE, "Input only.": INPUT_ONLY}
    wrong = [
        f"{name}.{field}: {word}"
        for name in INPUTS
        for field, said in _behaviour(name).items()
        for word, kind in words.items()
        if word in CONTRACTS.field_comments[f"{name}.{field}"] and kind not in said
    ]

    assert not wrong
