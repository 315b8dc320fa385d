"""Arguments that a model wrote, fitted to a JSON schema: of tools that are not Python, whose server has the types."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
# A schema may refer to itself, so what it is asked of values must end somewhere.
_MAX_DEPTH = 32
# Characters of a wrong value that are repeated; the model that reads the error wrote the value itself.
_SHOWN = 120


class SchemaMismatch(Exception):
    """A value does not fit its schema; the message names the place and why."""


def fit_arguments(
    parameters: Mapping[str, Any], arguments: Mapping[str, Any], nulls: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the arguments as the schema of the parameters wants them: numbers and truth from text, JSON from text.

    Null for what need not be given and does not allow it is left out. What fits stays as it is, and so does what the
    schema does not know. Raises SchemaMismatch.
    """
    properties = parameters.get("properties")
    known: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
    listed = parameters.get("required")
    required: Sequence[Any] = listed if isinstance(listed, list) else ()
    fitter = _Fitter(parameters)
    made: dict[str, Any] = {}
    for name, value in arguments.items():
        schema = fitter.followed(known.get(name))
        if value is None and name not in nulls and name not in required and schema and not fitter.allows_null(schema):
            continue
        made[name] = value if value is None and name in nulls else fitter.fit(schema, value, name, 0)
    return made


class _Fitter:
    """Fits values; references lead into the whole schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def followed(self, schema: Any) -> Mapping[str, Any]:
        """Return a schema, or what it refers to; an empty one for what is none."""
        for _ in range(_MAX_DEPTH):
            reference = schema.get("$ref") if isinstance(schema, dict) else None
            if not isinstance(reference, str):
                break
            schema = self._target(reference)
        return schema if isinstance(schema, dict) and "$ref" not in schema else {}

    def _target(self, reference: str) -> Any:
        place: Any = self._root
        for part in reference.split("/")[1:]:
            place = place.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
        # Others lead to documents elsewhere, which are not fetched.
        return place if reference.startswith("#") else None

    def allows_null(self, schema: Mapping[str, Any]) -> bool:
        """Say whether null fits."""
        kinds = _kinds(schema)
        if kinds:
            return "null" in kinds
        listed = schema.get("enum")
        if isinstance(listed, list):
            return None in listed
        members = _members(schema)
        return not members or any(self.allows_null(self.followed(member)) for member in members)

    def fit(self, schema: Any, value: Any, place: str, depth: int) -> Any:
        """Return a value as its schema has it. Raises SchemaMismatch."""
        schema = self.followed(schema)
        if not schema or depth > _MAX_DEPTH:
            return value
        if members := _members(schema):
            return self._one_of(members, value, place, depth)
        if isinstance(schema.get("enum"), list):
            return _listed(schema["enum"], value, place)
        kinds = _kinds(schema)
        if not kinds or any(_IS[kind](value) for kind in kinds):
            return self._inside(schema, value, place, depth)
        for kind in kinds:
            made = _MAKE[kind](value)
            if made is not None:
                return self._inside(schema, made, place, depth)
        raise SchemaMismatch(
            f"argument `{place}` must be {' or '.join(_NAMES[kind] for kind in kinds)}, not {_text(value)}"
        )

    def _one_of(self, members: Sequence[Any], value: Any, place: str, depth: int) -> Any:
        first: list[Any] = []
        whys: list[SchemaMismatch] = []
        for member in members:
            try:
                made = self.fit(member, value, place, depth + 1)
            except SchemaMismatch as error:
                whys.append(error)
                continue
            # A member that takes the value unchanged goes before one that must convert it.
            if type(made) is type(value) and made == value:
                return made
            first.append(made)
        if first:
            return first[0]
        raise whys[0]

    def _inside(self, schema: Mapping[str, Any], value: Any, place: str, depth: int) -> Any:
        if isinstance(value, dict):
            properties = schema.get("properties")
            known: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
            other = schema.get("additionalProperties")
            return {
                name: self.fit(known.get(name, other), item, f"{place}.{name}", depth + 1)
                for name, item in value.items()
            }
        if isinstance(value, list):
            first = schema.get("prefixItems")
            places = first if isinstance(first, list) else []
            return [
                self.fit(places[i] if i < len(places) else schema.get("items"), item, f"{place}[{i}]", depth + 1)
                for i, item in enumerate(value)
            ]
        return value


def _members(schema: Mapping[str, Any]) -> Sequence[Any]:
    found = schema.get("anyOf") or schema.get("oneOf")
    return found if isinstance(found, list) else ()


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    return [kind for kind in listed if isinstance(kind, str) and kind in _IS]


def _listed(values: Sequence[Any], value: Any, place: str) -> Any:
    for each in values:
        if type(each) is type(value) and each == value:
            return each
    for each in values:
        if _plain(each).lower() == _plain(value).lower():
            return each
    raise SchemaMismatch(f"argument `{place}` must be one of {', '.join(map(_text, values))[:400]}, not {_text(value)}")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _number(value: Any) -> float | int | None:
    if isinstance(value, str):
        try:
            # By JSON's rules, since `float` would also take `1_000`, `nan` and digits of other scripts.
            number = json.loads(value.strip().removeprefix("+"))
        except (ValueError, RecursionError):
            return None
        return number if _IS["number"](number) and math.isfinite(number) else None
    return None


def _integer(value: Any) -> int | None:
    number = _number(value) if isinstance(value, str) else value
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    return int(number) if isinstance(number, float) and number.is_integer() else None


def _truth(value: Any) -> bool | None:
    text = _plain(value).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _parsed(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            found = json.loads(value) if isinstance(value, str) else None
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, kind) else None

    return read


_IS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
_MAKE: dict[str, Callable[[Any], Any]] = {
    "string": lambda value: None if value is None else _plain(value),
    "integer": _integer,
    "number": _number,
    "boolean": _truth,
    "array": _parsed(list),
    "object": _parsed(dict),
    "null": lambda _: None,
}
_NAMES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
