"""Schemas of tools over every wire: what goes out, what stays of its meaning, and arguments that come back alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from letta.llm.v1 import generation_service_pb2 as pb
from letta_llm_gateway.providers.vendors.google import RULES
from tests.contract.providers.llm_gateway.conftest import Subject
from tests.contract.providers.llm_gateway.llm_prompts import assistant, call, prompt, returned, tool, user
from tests.contract.providers.llm_gateway.test_llm_tools import answered, both, told
from tests.fakes.wire import Say

Json = dict[str, Any]


def of(**properties: Any) -> Json:
    return {"type": "object", "properties": properties}


def nested(depth: int) -> tuple[Json, Json]:
    """Return a schema of this depth and arguments of it."""
    schema: Json = {"type": "string"}
    value: Any = "end"
    for _ in range(depth):
        schema, value = {**of(inner=schema), "required": ["inner"]}, {"inner": value}
    return schema, value


NODE = {
    **of(value={"type": "integer"}, kids={"type": "array", "items": {"$ref": "#/$defs/Node"}}),
    "required": ["value"],
}
TREE = {"value": 1, "kids": [{"value": 2, "kids": [{"value": 3, "kids": [{"value": 4}]}]}]}
CAT = {**of(kind={"const": "cat"}, lives={"type": "integer"}), "required": ["kind", "lives"]}
DOG = {**of(kind={"const": "dog"}, tricks={"type": "array", "items": {"type": "string"}}), "required": ["kind"]}
PETS: tuple[list[Json], list[Json]] = (
    [{"kind": "cat", "lives": 9}, {"kind": "dog", "tricks": ["sit"]}],
    [{"kind": "cow"}, {"kind": "cat", "lives": "nine"}, {"lives": 9}],
)
SIZE = {"type": "string", "enum": ["S", "M"]}
MANY = [f"the value of number {at}" for at in range(20_000)]
DEEP, AT_THE_END = nested(30)
WIDE = {"Any": of(**{f"p{at}": {"$ref": "#/$defs/Any"} for at in range(12)})}
CASES: dict[str, tuple[Json, list[Json], list[Json]]] = {
    "anyOf at the root": ({"anyOf": [CAT, DOG]}, *PETS),
    "oneOf at the root": (
        {"oneOf": [{"$ref": "#/$defs/C"}, {"$ref": "#/$defs/D"}], "$defs": {"C": CAT, "D": DOG}},
        *PETS,
    ),
    "anyOf beside properties": (
        {**of(a={"type": "integer"}, b={"type": "integer"}), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 1}],
        [{"a": "x"}],
    ),
    "anyOf with what is no object": ({"anyOf": [CAT, {"type": "string"}, {"type": "null"}]}, PETS[0][:1], [{}]),
    "allOf at the root": (
        {"allOf": [{**of(a={"type": "string"}), "required": ["a"]}, {**of(b={"type": "integer"}), "required": ["b"]}]},
        [{"a": "x", "b": 1}],
        [{"a": "x"}, {"b": 1}, {"a": 1, "b": 1}],
    ),
    "allOf that narrows": (
        of(
            size={"allOf": [{"$ref": "#/$defs/Size"}, {"enum": ["M", "L"]}]},
            n={"allOf": [{"minimum": 3}, {"minimum": 1}]},
        )
        | {"$defs": {"Size": SIZE}},
        [{"size": "M", "n": 3}],
        [{"size": "S"}, {"size": "L"}, {"n": 2}],
    ),
    "allOf of alternatives": ({"allOf": [{"anyOf": [CAT, DOG]}, of(name={"type": "string"})]}, *PETS),
    "a tree": (
        {**of(tree={"$ref": "#/$defs/Node"}), "$defs": {"Node": NODE}},
        [{"tree": TREE}],
        [{"tree": {"value": "x"}}],
    ),
    "itself": (of(next={"$ref": "#"}, value={"type": "integer"}), [{"next": {"value": 1}}], [{"next": {"value": "x"}}]),
    "a circle of references": (
        {**of(a={"$ref": "#/$defs/A"}), "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
        [{"a": 1}],
        [],
    ),
    "every kind of value": (
        {
            **of(a={"$ref": "#/$defs/V"}),
            "$defs": {
                "V": {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"$ref": "#/$defs/V"}}]}
            },
        },
        [{"a": {"b": {"c": {"d": "e"}}}}],
        [{"a": 1}, {"a": {"b": 1}}],
    ),
    "twelve of itself": (
        {**of(a={"$ref": "#/$defs/Any"}), "$defs": WIDE},
        [{"a": {"p0": {"p1": {"p2": {}}}}}],
        [{"a": 1}],
    ),
    "references with marks": (
        {
            **of(a={"$ref": "#/$defs/a%20b~1c"}, n={"$ref": "#named"}),
            "$defs": {"a b/c": {"type": "string"}, "x": {"$anchor": "named", "type": "integer"}},
        },
        [{"a": "x", "n": 1}],
        [{"a": 1}, {"n": "x"}],
    ),
    "a reference to nowhere": (
        of(a={"$ref": "https://schemas.test/a.json"}, b={"$ref": "#/$defs/None"}),
        [{"a": 1}],
        [],
    ),
    "depth 30": (DEEP, [AT_THE_END], [{}, {"inner": {}}]),
    "keys of other letters": (
        {
            **of(
                **{"$top": {"type": "integer"}, "@odata.type": {"type": "string"}, "größe": SIZE, "": SIZE, "a b": SIZE}
            ),
            "required": ["$top"],
            "dependentRequired": {"$top": ["a b"]},
            "additionalProperties": False,
        },
        [{"$top": 5, "@odata.type": "x", "größe": "S", "": "M", "a b": "M"}],
        [{"@odata.type": "x"}],
    ),
    "alternatives of other letters": (
        {
            "oneOf": [
                {**of(**{"$top": {"type": "integer"}}), "required": ["$top"]},
                {**of(**{"$skip": {"type": "integer"}}), "required": ["$skip"]},
            ]
        },
        [{"$top": 5}, {"$skip": 5}],
        [{"$top": "x"}],
    ),
    "no values": (of(a={"type": "string", "enum": []}, b={"enum": []}), [{"a": "x", "b": 1}], [{"a": 1}]),
    "values of several kinds": (
        of(a={"enum": [1, "x", None]}),
        [{"a": 1}, {"a": "x"}, {"a": None}],
        [{"a": 2}, {"a": "y"}],
    ),
    "values that are no texts": (
        of(a={"enum": [{"x": 1}, {"x": 2}]}, b={"enum": [True]}),
        [{"a": {"x": 1}, "b": True}],
        [{"a": 1}],
    ),
    "20,000 values": (of(a={"enum": MANY}), [{"a": MANY[-1]}], [{"a": 1}]),
    "true and false": (
        {
            **of(a=True, b=False, c={"type": "array", "items": True}, d={"type": "array", "items": False}),
            "required": ["a"],
            "additionalProperties": False,
        },
        [{"a": 1, "c": [1, "x"], "d": []}],
        [{}, {"a": 1, "b": 1}, {"a": 1, "d": [1]}],
    ),
    "several types": (
        of(a={"type": ["string", "null"]}, b={"type": ["integer", "array"], "items": {"type": "string"}}),
        [{"a": None, "b": 1}, {"a": "x", "b": ["y"]}],
        [{"a": 1}, {"b": "x"}, {"b": [1]}],
    ),
    "an object or nothing": ({**of(a={"type": "string"}), "type": ["object", "null"]}, [{"a": "x"}], [{"a": 1}]),
    "one value": (
        of(a={"const": "x"}, b={"const": 3}, c={"const": None}, d={"const": {"x": 1}}),
        [{"a": "x", "b": 3, "c": None, "d": {"x": 1}}],
        [{"a": "y"}, {"b": 4}, {"c": 1}, {"d": 1}],
    ),
    "keys by their form": (
        of(a={"type": "object", "patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False}),
        [{"a": {"x-one": "1"}}],
        [{"a": {"x-one": 1}}],
    ),
    "a row of kinds": (
        of(a={"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}),
        [{"a": ["x", 1]}],
        [{"a": ["x", 1, 2]}, {"a": [None]}],
    ),
    "if and then": (
        {**of(a={"type": "string"}, b={"type": "string"}), "if": of(a={"const": "x"}), "then": {"required": ["b"]}},
        [{"a": "x", "b": "y"}],
        [{"a": 1}],
    ),
}
_ROOT = ("anyOf", "oneOf", "allOf", "not", "enum", "const", "$ref")


def inner(schema: Json, depth: int = 0) -> Iterator[tuple[Json, int]]:
    """Yield a schema and all that are in it, with their depths."""
    yield schema, depth
    held = [schema.get("items"), schema.get("additionalProperties"), *schema.get("properties", {}).values()]
    for each in (*held, *schema.get("patternProperties", {}).values()):
        if isinstance(each, dict):
            yield from inner(each, depth + 1)
    for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from inner(each, depth + 1)


def is_taken(kind: str, schema: Json) -> None:
    """Demand what the references of the vendors say of schemas of tools."""
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert not [key for key in _ROOT if key in schema]
    assert len(json.dumps(schema)) < 64 << 10
    for each, depth in inner(schema):
        assert depth <= 12
        assert not {"$ref", "$defs", "definitions", "allOf"} & each.keys()
        assert all(re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", key) for key in each.get("properties", {}))
        assert set(each.get("required", ())) <= each.get("properties", {}).keys()
        assert each.get("enum", [0])
        assert all(isinstance(held, dict) for held in each.get("properties", {}).values())
        if kind == "google_ai":
            assert each.keys() <= (RULES.words or set())
            assert all(isinstance(value, (str, int, float)) for value in each.get("enum", ()))
            assert isinstance(each.get("type", ""), str) or len(set(each["type"]) - {"null"}) <= 1


def arguments(value: Any) -> Iterator[Json]:
    """Yield the arguments of the calls of a request, whatever its wire."""
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, (dict, list)):
            continue
        if isinstance(each, list):
            yield from arguments(each)
            continue
        named = each.get("name") == "odd"
        given = next((each[key] for key in ("arguments", "args", "input") if key in each), None) if named else None
        if given is not None:
            yield json.loads(given) if isinstance(given, str) else given
        else:
            yield from arguments(list(each.values()))


@pytest.mark.parametrize("case", CASES)
async def test_a_schema_goes_out_in_a_form_that_is_taken_and_keeps_its_meaning(subject: Subject, case: str) -> None:
    schema, fine, wrong = CASES[case]
    tools = (tool("plain"), tool("odd", schema))
    for given in (*fine, *wrong):
        asked = prompt(user("hi"), assistant(call("odd", given)), returned("ok"), user("again"), tools=tools)
        got = await answered(subject, asked)

        assert got.warnings == []
        assert list(told(subject)) == ["plain", "odd"]
        sent = told(subject)["odd"]
        is_taken(subject.kind, sent or {"type": "object"})
        body = subject.vendor.requests[-1].body
        [out] = arguments([body.get(key) for key in ("messages", "input", "contents")])
        assert jsonschema.Draft202012Validator(sent).is_valid(out) is (given in fine)


@both
@pytest.mark.parametrize("case", CASES)
async def test_arguments_come_back_in_the_form_of_the_tool(subject: Subject, case: str, stream: bool) -> None:
    schema, fine, _ = CASES[case]
    tools = (tool("plain"), tool("odd", schema))
    for given in fine:
        history = (user("hi"), assistant(call("odd", given)), returned("ok"), user("again"))
        await answered(subject, prompt(*history, tools=tools))
        body = subject.vendor.requests[-1].body
        [out] = arguments([body.get(key) for key in ("messages", "input", "contents")])
        subject.vendor.say(Say(calls=[("odd", out)], piece=3))

        got = await answered(subject, prompt(*history, tools=tools), stream=stream)

        [part] = got.parts
        assert json.loads(part.tool_call.input) == given


LEFT_OUT = {
    "a text": ('{"type": "string"}', "no object but of type"),
    "a list": ('{"type": "array", "items": {}}', "no object but of type"),
    "alternatives without an object": (
        '{"anyOf": [{"type": "string"}, {"type": "integer"}]}',
        "none of its alternatives is an object",
    ),
    "false": ("false", "no JSON object"),
    "more than any prompt": (json.dumps(of(a={"type": "string", "description": "x" * 300_000})), "bytes"),
    "more parts than can be said": (json.dumps(of(**{f"p{at}": {"type": "string"} for at in range(6_000)})), "parts"),
    "depth 5,000": ('{"properties": {"a": ' * 5_000 + "{}" + "}}" * 5_000, "no JSON object"),
    "bounds that are none": (json.dumps(of(a={"allOf": [{"minimum": "x"}, {"minimum": 1}]})), "cannot be sent"),
}


@both
@pytest.mark.parametrize("case", LEFT_OUT)
async def test_a_schema_that_cannot_go_out_leaves_out_its_tool_alone(subject: Subject, case: str, stream: bool) -> None:
    schema, why = LEFT_OUT[case]
    odd = pb.ToolDefinition(name="odd", parameters=schema)

    got = await answered(subject, prompt(user("hi"), tools=(tool("plain"), odd, tool("other"))), stream=stream)

    assert list(told(subject)) == ["plain", "other"]
    [warning] = got.warnings
    assert "tool 'odd' was left out" in warning
    assert why in warning


async def test_a_schema_that_demands_nothing_takes_anything(subject: Subject) -> None:
    got = await answered(subject, prompt(user("hi"), tools=(pb.ToolDefinition(name="odd", parameters="true"),)))

    assert got.warnings == []
    assert list(told(subject)) == ["odd"]
