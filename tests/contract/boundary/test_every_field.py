"""Whatever a caller may write of a resource is taken, kept and shown, by create and by update, over gRPC and REST."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from google.api.field_behavior_pb2 import IMMUTABLE, field_behavior

from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.fields import (
    CONDITIONS,
    NOUNS,
    TOOL,
    Noun,
    OverGrpc,
    OverRest,
    Values,
    holds,
    value_of,
    writable,
)

_COUNT = count()

_RULE = [{"exit_loop": {"tool_name": "send_message"}}]
_RULE_IN_REST = [{"type": "exit_loop", "tool_name": "send_message"}]
_MODEL, _EMBEDDER, _ADDRESS = "builtin/rules", "builtin/use-multilingual", "http://127.0.0.1:9/{}"
_PIP, _NPM = [{"name": "six", "version": "1.16.0"}], [{"name": "left-pad", "version": "1.3.0"}]
# Values that mean something, so that no other text will do: two for each field, or one for both.
BOUND: dict[str, tuple[Any, ...]] = {
    "Agent.block_ids": (["{block_id}"],),
    "Agent.compaction_settings": ({"model": _MODEL, "mode": "COMPACTION_MODE_ALL", "prompt": "Sum it up."},),
    "Agent.embedding": (_EMBEDDER,),
    "Agent.identity_ids": (["{identity_id}"],),
    "Agent.model": (_MODEL,),
    "Agent.model_settings": ({"provider_type": "builtin", "temperature": 0.5, "max_output_tokens": 50},),
    "Agent.secret_values": ({"KEY": "one"}, {"KEY": "two"}),
    "Agent.timezone": ("Europe/Berlin", "Asia/Tokyo"),
    "Agent.tool_ids": (["{tool_id}"],),
    "Archive.embedding": (_EMBEDDER,),
    "Conversation.agent_id": ("{agent_id}",),
    "Folder.embedding": (_EMBEDDER,),
    "Folder.embedding_config": ({"handle": _EMBEDDER},),
    "Conversation.isolated_block_labels": (["human"],),
    "Conversation.model": (_MODEL,),
    "Conversation.model_settings": ({"provider_type": "builtin", "temperature": 0.5},),
    "Provider.base_url": (_ADDRESS.format("v1"), _ADDRESS.format("v2")),
    "Provider.provider_type": ("openai-compatible",),
    "Tool.npm_requirements": (_NPM,),
    "Tool.pip_requirements": (_PIP,),
    "Tool.source_type": ("TOOL_SOURCE_TYPE_PYTHON",),
}
# Values that no two resources share.
UNIQUE = {"Folder.name": "unique-{}", "Provider.name": "unique-{}", "Tool.source_code": TOOL.replace("{}", "unique_{}")}
# Fields that answers show under another name.
SHOWN: dict[str, Callable[[Values], Any]] = {
    "Agent.block_ids": lambda agent: [block["id"] for block in agent["blocks"]],
    "Agent.context_window_limit": lambda agent: (
        agent.get("context_window_limit") or agent["llm_config"]["context_window"]
    ),
    "Agent.secret_values": lambda agent: {secret["key"]: secret["value"] for secret in agent["secrets"]},
    "Agent.tool_ids": lambda agent: [tool["id"] for tool in agent["tools"] if tool["name"] == "secret_tool"],
    "Archive.embedding": lambda archive: archive["embedding_config"]["handle"],
    "Folder.embedding": lambda folder: folder["embedding_config"]["handle"],
    "Folder.embedding_chunk_size": lambda folder: folder["embedding_config"]["embedding_chunk_size"],
    "Conversation.isolated_block_labels": lambda talk: ["human" for _ in talk["isolated_block_ids"]],
}
# Fields that answers do not show as they were written, each with its reason.
ELSEWHERE: dict[str, str] = {
    "Agent.compat": "older words for other fields: test_older_words_rpc",
    "Agent.folder_ids": "refused in this release",
    "Archive.compat": "older words for `embedding`: test_archives_are_made_in_older_words",
    "Folder.compat": "older words for other fields: test_a_chunk_size_counts_however_it_is_said",
    "Agent.response_format": "a union, which REST writes with a discriminator: test_client_forms",
    "Agent.tool_rules": "a union, which REST writes with a discriminator: test_rules_of_tools_are_kept",
    "Provider.access_key": "input only",
    "Provider.api_key": "input only",
    "Tool.idempotent": "no value is shown as absence",
    "Tool.json_schema": "follows from the source, or is agreed with it",
    "Tool.args_json_schema": "becomes the parameters of the schema",
}
# What a field is after it was cleared, where that is not what it was before anything was written.
CLEARED: dict[str, Any] = {
    "Agent.compaction_settings": None,
    "Agent.max_files_open": None,
    "Agent.model_settings": None,
    "Agent.per_file_view_window_char_limit": None,
    "Block.preserve_on_migration": None,
    "Block.value": "",
    "Tool.description": None,
}
# Fields that a resource always has: a clearing is refused, or leaves the value.
ALWAYS = {
    "Agent.block_ids",
    "Agent.context_window_limit",
    "Agent.model",
    "Agent.name",
    "Agent.system",
    "Agent.timezone",
    "Archive.name",
    "Block.label",
    "Folder.embedding_config",
    "Folder.name",
    "Tool.source_code",
}


def cases(message: str) -> list[Any]:
    return [
        pytest.param(noun, field, id=f"{noun.name}.{field.name}")
        for noun in NOUNS.values()
        for field in writable(getattr(noun, message))
        if f"{noun.name}.{field.name}" not in ELSEWHERE and not (message == "changed_by" and immutable(field))
    ]


def immutable(field: Any) -> bool:
    return IMMUTABLE in field.GetOptions().Extensions[field_behavior]


@pytest.fixture(params=[OverGrpc, OverRest], ids=["grpc", "rest"])
def edge(request: Any, deployment: Deployment) -> Any:
    return request.param(deployment)


def value(noun: Noun, field: Any, which: int, owned: dict[str, str]) -> Any:
    """Return a value; one that cannot be absent is never its zero, which a mask alone can set."""
    name = f"{noun.name}.{field.name}"
    if name in UNIQUE:
        return UNIQUE[name].format(next(_COUNT))
    known = BOUND.get(name)
    if known is None:
        return value_of(field, 0 if field.type == field.TYPE_BOOL and not field.has_presence else which)
    found = known[which % len(known)]
    return (
        [one.format(**owned) if isinstance(one, str) else one for one in found]
        if isinstance(found, list)
        else (owned["agent_id"] if found == "{agent_id}" else found)
    )


def base(noun: Noun) -> Values:
    """Return what a noun cannot do without, its name unlike all others."""
    number = next(_COUNT)
    named = {"name": f"made-{number}"}
    unique: Values = {"Tool": {"source_code": TOOL.format(f"made_{number}")}, "Provider": named, "Folder": named}
    return {**noun.base, **unique.get(noun.name, {})}


def require(edge: Any, noun: Noun, field: Any, written: Any, answer: Values) -> None:
    """Fail unless an answer shows what was written."""
    look = SHOWN.get(f"{noun.name}.{field.name}")
    ((key, expected),) = edge.shown(noun, {field.name: written}).items()
    shown = look(answer) if look else answer.get(key)

    assert holds(shown, expected), f"{key} is {shown!r}, not {expected!r}"


@pytest.mark.parametrize(("noun", "field"), cases("made_of"))
def test_a_field_that_create_takes_is_kept(edge: Any, deployment: Deployment, noun: Noun, field: Any):
    written = value(noun, field, 0, deployment.caller.owned)

    made = edge.create(noun, base(noun) | {field.name: written})

    for answer in (made, edge.read(noun, made["id"])):
        require(edge, noun, field, written, answer)


@pytest.mark.parametrize(("noun", "field"), cases("changed_by"))
def test_a_field_that_update_takes_is_kept(edge: Any, deployment: Deployment, noun: Noun, field: Any):
    identifier = edge.create(noun, base(noun))["id"]

    for which, named in ((0, (field.name,)), (1, ())):
        written = value(noun, field, which, deployment.caller.owned)
        again = {"api_key": "sk"} if field.name == "base_url" else {}
        names = (*named, *again) if named else ()
        changed = edge.change(noun, identifier, {field.name: written, **again}, names)
        for answer in (changed, edge.read(noun, identifier)):
            require(edge, noun, field, written, answer)


@pytest.mark.parametrize(("noun", "field"), cases("changed_by"))
def test_a_field_that_a_mask_names_alone_is_cleared(edge: Any, deployment: Deployment, noun: Noun, field: Any):
    name = f"{noun.name}.{field.name}"
    if name in ALWAYS or name in SHOWN or field.name == "base_url":
        pytest.skip("a resource always has it, or shows it elsewhere")
    identifier = edge.create(noun, base(noun))["id"]
    before = edge.read(noun, identifier)
    edge.change(noun, identifier, {field.name: value(noun, field, 0, deployment.caller.owned)})

    edge.change(noun, identifier, {field.name: None}, (field.name,))

    (key,) = edge.shown(noun, {field.name: value(noun, field, 0, deployment.caller.owned)})
    assert edge.read(noun, identifier).get(key) == CLEARED.get(name, before.get(key))


@pytest.mark.parametrize("noun", [noun for noun in NOUNS.values() if noun.wrapped], ids=lambda noun: noun.name)
def test_create_reads_nothing_that_is_output_only(edge: Any, noun: Noun):
    plain = edge.create(noun, base(noun))
    written = {each.name for each in writable(noun.made_of)} | CONDITIONS
    plain_values = [each for each in noun.made_of.fields if each.message_type is None]
    outputs = {each.name: value_of(each, 0) for each in plain_values if each.name not in written}

    made = edge.create(noun, base(noun) | outputs)

    for key, each in edge.shown(noun, outputs).items():
        assert made.get(key) != each or plain.get(key) == each, key
    assert len(outputs) > 2


def test_rules_of_tools_are_kept(deployment: Deployment):
    rpc, rest, agent = OverGrpc(deployment), OverRest(deployment), NOUNS["Agent"]
    identifier = rpc.create(agent, base(agent))["id"]

    rpc.change(agent, identifier, {"tool_rules": _RULE})

    assert holds(rest.read(agent, identifier)["tool_rules"], _RULE_IN_REST)


def test_exceptions_name_fields():
    known = {f"{n.name}.{f.name}" for n in NOUNS.values() for m in (n.made_of, n.changed_by) for f in m.fields}

    assert known >= BOUND.keys() | SHOWN.keys() | ELSEWHERE.keys() | CLEARED.keys() | ALWAYS | UNIQUE.keys()
