"""Arguments of tools that are not Python are fitted to their JSON schema."""

import pytest

from letta_tool_schemas.fitting import SchemaMismatch, fit_arguments


def schema(of, **more):
    return {"type": "object", "properties": {"a": of}, **more}


@pytest.mark.parametrize(
    ("of", "value", "fitted"),
    [
        ({"type": "integer"}, "3", 3),
        ({"type": "integer"}, "3.0", 3),
        ({"type": "integer"}, 3.0, (3.0).__int__()),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, 0, False),
        ({"type": "string"}, 5, "5"),
        ({"type": "string"}, {"x": 1}, '{"x": 1}'),
        ({"type": "array", "items": {"type": "integer"}}, '["1", 2]', [1, 2]),
        ({"type": "object", "properties": {"b": {"type": "integer"}}}, '{"b": "1", "c": "1"}', {"b": 1, "c": "1"}),
        ({"type": "object", "additionalProperties": {"type": "number"}}, {"x": "1"}, {"x": 1}),
        ({"type": ["integer", "null"]}, "3", 3),
        ({"type": ["integer", "null"]}, None, None),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "3", "3"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "3", 3),
        ({"enum": ["red", 2]}, "2", 2),
        ({"enum": ["red", "blue"]}, "RED", "red"),
        ({"$ref": "#/$defs/N"}, "3", 3),
        ({"$ref": "#/$defs/Nowhere"}, "3", "3"),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, ["1", 2], [1, "2"]),
        ({}, "3", "3"),
        (True, "3", "3"),
        ({"type": "mystery"}, "3", "3"),
    ],
)
def test_values_become_what_the_schema_says(of, value, fitted):
    found = fit_arguments(schema(of, **{"$defs": {"N": {"type": "integer"}}}), {"a": value, "other": "1"})
    assert (found, type(found["a"])) == ({"a": fitted, "other": "1"}, type(fitted))


@pytest.mark.parametrize(
    ("of", "value", "says"),
    [
        ({"type": "integer"}, "three", 'argument `a` must be a whole number, not "three"'),
        ({"type": "integer"}, 1.5, "argument `a` must be a whole number, not 1.5"),
        ({"type": "number"}, "1e999", 'argument `a` must be a number, not "1e999"'),
        ({"type": "boolean"}, "maybe", 'argument `a` must be true or false, not "maybe"'),
        ({"type": "array", "items": {"type": "integer"}}, [1, "x"], 'argument `a[1]` must be a whole number, not "x"'),
        ({"type": "object"}, "text", 'argument `a` must be an object, not "text"'),
        ({"enum": ["x", "y"]}, "z", 'argument `a` must be one of "x", "y", not "z"'),
    ],
)
def test_what_does_not_fit_is_named(of, value, says):
    with pytest.raises(SchemaMismatch) as caught:
        fit_arguments(schema(of), {"a": value})
    assert str(caught.value) == says


def test_null_for_what_need_not_be_given_is_left_out():
    assert fit_arguments(schema({"type": "integer"}), {"a": None}) == {}
    assert fit_arguments(schema({"type": "integer"}), {"a": None}, nulls=("a",)) == {"a": None}
    with pytest.raises(SchemaMismatch):
        fit_arguments(schema({"type": "integer"}, required=["a"]), {"a": None})


def test_a_schema_that_refers_to_itself_comes_to_an_end():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "n": {"type": "integer"}}}
    parameters = schema({"$ref": "#/$defs/Node"}, **{"$defs": {"Node": node, "Loop": {"$ref": "#/$defs/Loop"}}})
    assert fit_arguments(parameters, {"a": {"n": "1", "next": {"n": "2"}}}) == {"a": {"n": 1, "next": {"n": 2}}}
    assert fit_arguments({**parameters, "properties": {"a": {"$ref": "#/$defs/Loop"}}}, {"a": "1"}) == {"a": "1"}
