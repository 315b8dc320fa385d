"""Values and types of properties for vendors that know few keywords, Google above all."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]
SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
"""Names of the types of JSON values that are neither objects nor lists."""


def values(found: Json) -> Json:
    """Return a schema whose listed values are texts or numbers of the type that it names; others are told in words."""
    given = [found["const"]] if "const" in found else found.get("enum")
    if not isinstance(given, list):
        return found
    rest = {key: value for key, value in found.items() if key not in {"const", "enum"}}
    plain = [each for each in given if isinstance(each, (str, int, float)) and not isinstance(each, bool)]
    if any(each is not None and each not in plain for each in given) or not plain:
        return _in_words(rest, given)
    kinds = sorted({SCALARS[type(each)] for each in plain})
    told = [{"type": kind, "enum": [each for each in plain if SCALARS[type(each)] == kind]} for kind in kinds]
    told += [{"type": "null"}] if None in given else []
    rest.pop("type", None)
    return {**rest, **told[0]} if len(told) == 1 else {**rest, "anyOf": told}


def several_types(found: Json) -> Json:
    """Return a schema of several types as alternatives, each with the words that are of its type."""
    kinds = found.get("type")
    if not isinstance(kinds, list) or "anyOf" in found or len([kind for kind in kinds if kind != "null"]) < 2:
        return found
    rest = {key: value for key, value in found.items() if key != "type"}
    told = [{"type": kind, **{key: rest[key] for key in _WORDS.get(kind, ()) if key in rest}} for kind in kinds]
    shared = {key: value for key, value in rest.items() if not any(key in words for words in _WORDS.values())}
    return {**shared, "anyOf": told}


def opened(found: Json) -> Json:
    """Return a schema that takes the keys which it knows by their form alone."""
    forms = found.get("patternProperties")
    if not isinstance(forms, dict) or not forms or found.get("additionalProperties") is not False:
        return found
    kinds = list(forms.values())
    return {**found, "additionalProperties": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}


_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_WORDS = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "integer": _NUMBERS,
    "number": _NUMBERS,
    "array": ("items", "minItems", "maxItems", "uniqueItems"),
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
}


def _in_words(rest: Json, given: list[Any]) -> Json:
    kinds = {SCALARS.get(type(each), "object" if isinstance(each, dict) else "array") for each in given}
    found = rest if "type" in rest or len(kinds) > 1 else {**rest, "type": kinds.pop()}
    if found.get("type") == "array" and "items" not in found:
        found["items"] = {}
    said = f"one of {json.dumps(given, ensure_ascii=False)[:400]}"
    before = found.get("description")
    return {**found, "description": f"{before} {said}" if isinstance(before, str) and before else said}
