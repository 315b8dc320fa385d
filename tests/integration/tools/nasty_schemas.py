"""JSON schemas that are legal and unpleasant, written for this test."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def _nested(depth: int) -> Json:
    schema: Json = {"type": "string"}
    for level in range(depth):
        schema = {"type": "object", "properties": {f"level_{level}": schema}, "required": [f"level_{level}"]}
    return schema


def _properties(**properties: Any) -> Json:
    return {"type": "object", "properties": properties}


NASTY: dict[str, Json] = {
    "nothing": {"type": "object", "properties": {}},
    "no_properties": {"type": "object"},
    "not_even_a_type": {},
    "open_object": {"type": "object", "additionalProperties": True},
    "closed_object": {"type": "object", "properties": {}, "additionalProperties": False},
    "typed_values": {"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}},
    "required_of_what_is_not_there": {"type": "object", "properties": {"a": {}}, "required": ["a", "b"]},
    "required_twice": {"type": "object", "properties": {"a": {}}, "required": ["a", "a"]},
    "words_of_the_language": _properties(
        type={"type": "string"},
        properties={"type": "object", "properties": {"properties": {"type": "string"}}},
        required={"type": "boolean"},
        items={"type": "array", "items": {"type": "string"}},
        description={"type": "string", "description": "a description"},
        enum={"enum": ["enum"]},
        default={"default": "default"},
        name={"type": "string"},
        parameters={"type": "object"},
        **{"$ref": {"type": "string"}, "$defs": {"type": "string"}, "title": {"type": "string", "title": "Title"}},
    ),
    "names_of_other_languages": _properties(
        __proto__={"type": "string"}, constructor={"type": "string"}, self={"type": "string"}, **{"class": {}}
    ),
    "odd_names": _properties(
        **{"": {}, " ": {}, "a.b": {}, "a/b~c": {}, "ä ö": {}, "😀": {}, "a\nb": {}, '"': {}, "\\": {}}
    ),
    "order_matters": _properties(z={}, a={}, m={}, b={}),
    "any_value": _properties(a={}, b=True, c=False),
    "several_types": _properties(a={"type": ["string", "null"]}, b={"type": ["integer", "array", "object"]}),
    "nullable": _properties(a={"type": "string", "nullable": True, "default": None}),
    "unions": _properties(
        a={"anyOf": [{"type": "string"}, {"type": "null"}]},
        b={"oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
        c={"allOf": [{"type": "object", "properties": {"x": {}}}, {"required": ["x"]}]},
        d={"not": {"type": "string"}},
    ),
    "conditions": {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "x": {}},
        "if": {"properties": {"kind": {"const": "a"}}},
        "then": {"required": ["x"]},
        "else": {"properties": {"x": False}},
        "dependentRequired": {"x": ["kind"]},
        "dependentSchemas": {"x": {"minProperties": 2}},
    },
    "references": {
        "type": "object",
        "properties": {
            "home": {"$ref": "#/$defs/address"},
            "work": {"$ref": "#/$defs/address", "description": "office"},
        },
        "$defs": {"address": {"type": "object", "properties": {"street": {"type": "string"}}, "required": ["street"]}},
    },
    "contains_itself": {
        "type": "object",
        "properties": {"tree": {"$ref": "#/definitions/node"}},
        "definitions": {
            "node": {
                "type": "object",
                "properties": {"children": {"type": "array", "items": {"$ref": "#/definitions/node"}}},
            }
        },
    },
    "reference_to_the_root": _properties(again={"$ref": "#"}),
    "annotated_root": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/schema",
        "$comment": "a comment",
        "title": "Root",
        "description": "the root",
        "type": "object",
        "properties": {"a": {"type": "string", "examples": ["x"], "deprecated": True, "readOnly": True}},
        "x-vendor": {"anything": [1, 2]},
    },
    "strings": _properties(
        a={"type": "string", "pattern": r"^\d{4}-\d\d\\?[\"'/]$", "minLength": 0, "maxLength": 2147483648},
        b={"type": "string", "format": "date-time"},
        c={"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
        d={"type": "string", "const": ""},
        e={"type": "string", "default": '\t\n"\\/\b\f\r\x1f\x7f\u2028\u2029'},
    ),
    "numbers": _properties(
        a={"type": "integer", "minimum": -9223372036854775808, "maximum": 18446744073709551615},
        b={"type": "integer", "maximum": 123456789012345678901234567890},
        c={"type": "number", "minimum": 0.1, "exclusiveMaximum": 1e300, "multipleOf": 0.01},
        d={"type": "number", "default": 1.0},
        e={"type": "number", "default": -0.0},
        f={"type": "integer", "default": 1},
        g={"type": "number", "enum": [1, 1.5, -1e-7, 9007199254740993]},
        h={"type": "boolean", "default": False},
    ),
    "enumerations": _properties(
        a={"enum": ["x", 1, 1.5, True, None, {"k": [1]}, []]},
        b={"type": "string", "enum": [f"value-{number}" for number in range(500)]},
        c={"const": {"deep": [{"er": None}]}},
        d={"type": "integer", "enum": [0]},
    ),
    "arrays": _properties(
        a={"type": "array"},
        b={"type": "array", "items": {}},
        c={"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}},
        d={"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
        e={"type": "array", "items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False},
        f={"type": "array", "uniqueItems": True, "contains": {"type": "string"}, "minContains": 1, "maxContains": 2},
    ),
    "objects": _properties(
        a={"type": "object", "patternProperties": {"^x-": {"type": "string"}}, "propertyNames": {"maxLength": 9}},
        b={"type": "object", "minProperties": 1, "maxProperties": 3, "unevaluatedProperties": False},
        c={"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": {"type": "string"}},
        d={"type": "object", "default": {"x": {"y": [1, 2.0, None]}}},
    ),
    "deep": _nested(24),
    "wide": _properties(**{f"p{number}": {"type": "string", "description": "d" * 20} for number in range(300)}),
    "long_descriptions": _properties(a={"type": "string", "description": "long " * 2_000}),
    "other_scripts": _properties(
        名前={"type": "string", "description": "名前を入力してください。"},
        שם={"type": "string", "description": "שם מלא"},
        a={"type": "string", "description": "e\u0301 \u200b \ufeff \U0001f469\u200d\U0001f469\u200d\U0001f467"},
    ),
    "code_in_text": _properties(
        a={"type": "string", "description": "'); drop table tools.tools; -- ${x} {{y}} %s %(z)s </tool> <|im_end|>"}
    ),
    "text_that_is_json": _properties(a={"type": "string", "default": '{"type": "object"}', "description": "[1, 2]"}),
}
DESCRIPTIONS = {
    "nothing": "",
    "odd_names": "Line one.\nLine two\twith a tab. \"Quoted\" \\ and 'single'.",
    "other_scripts": "説明 🎲",
    "numbers": "x" * 5_000,
}
"""Descriptions of tools; others have a plain one."""
