"""Nasty schemas go into the registry, come back whole, and reach every vendor with a few known differences alone."""

import json

import pytest

from letta.llm.v1.generation_service_pb2 import Prompt, ToolDefinition
from letta.tools.v1.mcp_server_pb2 import SchemaHealth
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import ToolSourceInvalid
from letta_common.values.ids import new_id
from letta_postgres.db import Database
from letta_tools.domain.mcp.tools import health_of
from letta_tools.domain.registry.builtin import builtin_tools
from letta_tools.domain.registry.records import ToolSourceType
from letta_tools.domain.registry.tools import Tools
from letta_tools.store.tools import SqlToolStore
from tests.integration.tools.nasty_schemas import DESCRIPTIONS, NASTY
from tests.integration.tools.wires import FORMATS, Told, allowed, definitions, differences, faults


@pytest.fixture(scope="module")
async def kept(database_url):
    """The corpus, after a way through the registry."""
    db = await Database.open(database_url, schema="tools")
    tools, ann = Tools(SqlToolStore(db), SystemClock()), Actor(new_id("org"), "user-ann")
    for name, parameters in NASTY.items():
        schema = {"name": name, "description": DESCRIPTIONS.get(name, "Does something."), "parameters": parameters}
        await tools.put(ann, {"source_type": ToolSourceType.JSON, "json_schema": json.dumps(schema)})
    resolved, _ = await tools.resolve(ann, (), tuple(NASTY))
    await db.close()
    return {tool.name: tool for tool in resolved}


def test_they_come_back_whole(kept):
    assert list(kept) == list(NASTY)
    for name, parameters in NASTY.items():
        schema = json.loads(kept[name].json_schema)
        assert schema["description"] == DESCRIPTIONS.get(name, "Does something.")
        wanted = {"type": "object", "properties": {}, **parameters}
        assert json.dumps(schema["parameters"]) == json.dumps(wanted), name  # 1 is not 1.0, and order matters


@pytest.mark.parametrize("vendor", list(FORMATS))
@pytest.mark.parametrize("strict", [False, True])
def test_every_vendor_is_told_what_the_registry_has(kept, vendor, strict):
    assert faults(vendor, definitions(kept.values(), strict=strict), strict=strict) == []


@pytest.mark.parametrize("vendor", list(FORMATS))
def test_every_vendor_is_told_of_the_builtin_tools(vendor):
    assert faults(vendor, definitions(builtin_tools())) == []


DIFFERENCES = {
    "openai": {"strict is said when it is asked for"},
    "openai compatible": {"strict is said when it is asked for"},
    "openai responses": {"strict is always said, since left out it would be true"},
    "anthropic": {"strict is said when it is asked for", "the last tool carries the mark of the cache"},
    "google": {"without properties there are no parameters"},
    "bedrock": {"strict is said when it is asked for", "an empty description is left out"},
}
"""What is lost or added on the way, all of it."""


@pytest.mark.parametrize("vendor", list(FORMATS))
def test_the_known_differences_are_those_that_occur(kept, vendor):
    seen = set()
    for strict in (False, True):
        sent = definitions(kept.values(), strict=strict)
        told = FORMATS[vendor][1](Prompt(tools=sent))
        for one, other in zip(sent, told, strict=True):
            seen |= allowed(vendor, one, other)
    assert seen == DIFFERENCES[vendor]


def test_a_difference_that_is_not_known_is_found():
    """The control: what a format lost, changed or added would be seen."""
    sent = ToolDefinition(
        name="f", description="F.", parameters='{"type":"object","properties":{"a":{"default":1.0},"b":{}}}'
    )
    whole = json.loads(sent.parameters)
    other = json.loads('{"type":"object","properties":{"b":{},"a":{"default":1.0}}}')
    for told, field in (
        (Told("g", "F.", whole, {}), "name"),
        (Told("f", None, whole, {}), "description"),
        (Told("f", "F.", None, {}), "parameters"),
        (Told("f", "F.", {**whole, "properties": {"a": {"default": 1}, "b": {}}}, {}), "parameters"),
        (Told("f", "F.", other, {}), "parameters"),
        (Told("f", "F.", whole, {"strict": True}), "extra"),
    ):
        for vendor in FORMATS:
            assert differences(vendor, sent, told) == {field}


# Names that the registry takes, that a vendor does not, and what is said of it.
@pytest.mark.parametrize("vendor", list(FORMATS))
def test_names_of_the_registry_are_names_of_every_vendor_but_for_a_hyphen_in_front(vendor):
    names = ["a", "_a", "a-b", "A9_", "x" * 64]
    tools = [ToolDefinition(name=name, description="D.", parameters='{"type":"object"}') for name in names]
    assert [told.name for told in FORMATS[vendor][1](Prompt(tools=tools))] == names


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ('{"name": "f", "parameters": {"type": "object", "properties": {"a": {"default": NaN}}}}', "NaN"),
        ('{"name": "f", "parameters": {"type": "object", "properties": {"a": {"default": -Infinity}}}}', "Infinity"),
        ('{"name": "f", "parameters": {"type": "object", "properties": {"a": {"default": 1e999}}}}', "too large"),
        ('{"name": "f", "parameters": {"type": "object", "properties": {"a": {"default": "\\ud800"}}}}', "no JSON"),
        ('{"name": "f", "description": "\\udfff", "parameters": {"type": "object"}}', "no JSON"),
        ('{"name": "f", "parameters": {"type": "object", "properties": ' + '{"a":' * 9000 + "1" + "}" * 9002, "JSON"),
        ('{"name": "f", "parameters": {"type": "array"}}', "type object"),
        ('{"name": "f", "parameters": {"type": "object", "properties": []}}', "must be an object"),
        ('{"name": "f", "parameters": [1]}', "type object"),
        ('{"name": "a.b", "parameters": {}}', "letters"),
        ('{"name": 1}', "needs a `name`"),
        ("[]", "must be a JSON object"),
        ("{", "is not JSON"),
    ],
)  # fmt: skip
async def test_what_is_no_schema_is_refused(schema, says, database_url):
    db = await Database.open(database_url, schema="tools")
    try:
        with pytest.raises(ToolSourceInvalid, match=says):
            await Tools(SqlToolStore(db), SystemClock()).put(
                Actor(new_id("org"), "user-ann"), {"source_type": ToolSourceType.JSON, "json_schema": schema}
            )
    finally:
        await db.close()


STRICT = {"closed_object"}
"""Those that a vendor which enforces schemas takes as they are: every object closed, every property required."""
INVALID = {"arrays"}
"""Those that vendors refuse: lists where they want a schema."""


def test_which_schemas_a_strict_vendor_takes(kept):
    """The schema stays as it is; it is for whoever wants a tool to be strict to write such a one."""
    health = {name: health_of(json.loads(tool.json_schema)["parameters"]).status for name, tool in kept.items()}

    assert {name for name, status in health.items() if status == SchemaHealth.SCHEMA_HEALTH_STRICT_COMPLIANT} == STRICT
    assert {name for name, status in health.items() if status == SchemaHealth.SCHEMA_HEALTH_INVALID} == INVALID
