"""Schemas of tools as vendors take them.

Vendors refuse a whole request for one schema: with alternatives at its root, keys of other letters, circles, or words
of an older JSON Schema. Each is said in another way here; what has no other way is told to the model in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from letta_llm_gateway.providers.fitting.names import fresh
from letta_llm_gateway.providers.fitting.references import resolve
from letta_llm_gateway.providers.fitting.values import SCALARS, opened, several_types, values

Json = dict[str, Any]
KEY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
"""Keys of properties that OpenAI and Anthropic take; the others take them too."""
# OpenAI takes 5,000 properties and ten levels; written out, references make a small schema grow to any size.
MOST_NODES = 5_000
_DEPTH = 10
_TURNS = 2
"""How often a schema that contains itself is written out."""
_ALTERNATIVES = ("anyOf", "oneOf")
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_LISTS = ("allOf", *_ALTERNATIVES)
_INNER = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_TABLES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_TOLD, _TOLD_DEEP = 400, 2_000
_MOST_CHOICES, _CHOICES_TOLD = 500, 20
"""A longer list of values is told by a few of them: it alone would fill a prompt, and vendors take no more."""
_MOST_BYTES = 256 << 10


@dataclass(slots=True)
class Fitted:
    """A schema as it goes out, with what its keys are called here."""

    schema: Json
    keys: dict[str, str] = field(default_factory=dict)
    """Own names of keys, by the names that went out."""
    note: str = ""
    """What the schema says of itself in words alone, for the description of the tool."""


def fit(schema: Json, *, words: frozenset[str] | None = None) -> Fitted:
    """Return a schema in a form that vendors take; `words` are the keywords that this one knows, None is any.

    Raises:
        ValueError: the schema cannot be said in a few thousand parts.
    """
    fitter = _SchemaFitter(schema, words)
    whole = fitter.schema(schema, 0, ())
    root = _rooted(whole)
    if (size := len(json.dumps(root))) > _MOST_BYTES:
        raise ValueError(f"it has {size} bytes, and {_MOST_BYTES} are the most")
    said = root.get("description")
    return Fitted(root, fitter.names.back, said if said != schema.get("description") and isinstance(said, str) else "")


def renamed(value: Any, keys: Mapping[str, str]) -> Any:
    """Return a JSON value with its keys renamed, at every level."""
    if isinstance(value, dict):
        return {keys.get(key, key): renamed(each, keys) for key, each in value.items()}
    return [renamed(each, keys) for each in value] if isinstance(value, list) else value


class _Names:
    """Names for keys that vendors refuse: the same name for the same key, and none that the schema has itself."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._out: dict[str, str] = {}
        self.back: dict[str, str] = {}

    def out(self, key: str) -> str:
        """Return the name under which a key goes out."""
        if KEY.fullmatch(key):
            return key
        if key not in self._out:
            name = fresh(key, self._taken, most=64)
            self._taken.add(name)
            self._out[key], self.back[name] = name, key
        return self._out[key]


class _SchemaFitter:
    def __init__(self, root: Json, words: frozenset[str] | None) -> None:
        self._root, self._words = root, words
        self._nodes = 0
        self.names = _Names(set(_keys_of(root)))

    def schema(self, given: Any, depth: int, path: tuple[str, ...]) -> Json:
        """Return a schema without references, its inner schemas fitted."""
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES} parts")
        if not isinstance(given, dict):  # the schemas true and false, and what is none
            return {}
        for key in _REFERENCES:
            if isinstance(ref := given.get(key), str):
                return self._referred(ref, {name: each for name, each in given.items() if name != key}, depth, path)
        if depth > _DEPTH:
            return _in_words(given)
        found = {key: value for key, value in given.items() if key not in {"$defs", "definitions", "$schema", "$id"}}
        found = _modern(found)
        for key in _INNER:
            if isinstance(found.get(key), dict):
                found[key] = self.schema(found[key], depth + 1, path)
        for key in (*_LISTS, "prefixItems"):
            if key in found:
                found[key] = self._list(found, key, depth, path)
        if "properties" in found:
            self._properties(found, depth, path)
        elif "required" in found:
            found["required"] = self._named(found["required"])
        found.update({key: self._named(found[key]) for key in _NAMING if key in found})
        return self._known(_merged(_plain(found)))

    def _referred(self, ref: str, beside: Json, depth: int, path: tuple[str, ...]) -> Json:
        target = resolve(self._root, ref)
        if target is None:
            return self.schema(_described(beside, f"as {ref} says"), depth, path)
        if path.count(ref) >= _TURNS or depth > _DEPTH:
            return _in_words(target if isinstance(target, dict) else {}, again=ref.rpartition("/")[2])
        whole = {**target, **beside} if isinstance(target, dict) else beside
        return self.schema(whole, depth, (*path, ref))

    def _list(self, found: Json, key: str, depth: int, path: tuple[str, ...]) -> list[Json]:
        given = found[key]
        # What `allOf` holds is merged into its parent and so stands no deeper.
        inner = depth if key == "allOf" else depth + 1
        return [self.schema(each, inner, path) for each in given] if isinstance(given, list) else []

    def _properties(self, found: Json, depth: int, path: tuple[str, ...]) -> None:
        given = found["properties"] if isinstance(found["properties"], dict) else {}
        # Draft 3 marks each property that is required, later drafts list them beside the properties.
        demanded = [key for key, each in given.items() if isinstance(each, dict) and each.get("required") is True]
        given = {key: each for key, each in given.items() if each is not False}  # which must never be there
        found["properties"] = {self.names.out(key): self.schema(each, depth + 1, path) for key, each in given.items()}
        wanted = [key for key in [*found.get("required", ()), *demanded] if isinstance(key, str) and key in given]
        if wanted or "required" in found:
            found["required"] = [self.names.out(key) for key in dict.fromkeys(wanted)]

    def _named(self, given: Any) -> Any:
        """Return lists and tables of keys with the names under which keys go out."""
        if isinstance(given, dict):
            return {self.names.out(key): self._named(each) for key, each in given.items()}
        if isinstance(given, list):
            return [self.names.out(each) for each in given if isinstance(each, str)]
        return given

    def _known(self, found: Json) -> Json:
        """Say in words what the vendor has no word for."""
        if self._words is None:
            return found
        found = several_types(values(opened(found)))
        rest = {key: value for key, value in found.items() if key not in self._words}
        kept = {key: value for key, value in found.items() if key in self._words}
        rest = {key: value for key, value in rest.items() if key not in _SILENT}
        return _described(kept, json.dumps(rest, ensure_ascii=False)) if rest else kept


_LOWER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_UPPER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_SILENT = frozenset({"examples", "$comment", "deprecated", "readOnly", "writeOnly", "$anchor", "strict"})


_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMING = ("dependentRequired", "propertyOrdering")


def _modern(found: Json) -> Json:
    """Return a schema in the words of today's JSON Schema, without words of a wrong form."""
    for key in _TABLES:
        if key in found and not isinstance(found[key], dict):
            del found[key]
    # Draft 4 has a flag beside the bound, later drafts have the bound itself.
    for low, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(found.get(low), bool):
            strict = found.pop(low)
            if strict and bound in found:
                found[low] = found.pop(bound)
    if "required" in found and not isinstance(found["required"], list):
        del found["required"]
    if "enum" in found and not (isinstance(found["enum"], list) and found["enum"]):
        del found["enum"]
    if "enum" in found and (len(found["enum"]) > _MOST_CHOICES or len(json.dumps(found["enum"])) > _MOST_BYTES // 8):
        _few(found)
    # A list of items was the word for a tuple until the draft of 2020.
    if isinstance(found.get("items"), list):
        found["prefixItems"] = found.pop("items")
    _type(found)
    return found


def _few(found: Json) -> None:
    """Tell a long list of values by the first of them, in place."""
    given = found.pop("enum")
    kinds = {SCALARS.get(type(each), "") for each in given}
    if "type" not in found and len(kinds) == 1 and (kind := kinds.pop()):
        found["type"] = kind
    some = json.dumps(given[:_CHOICES_TOLD], ensure_ascii=False)
    found.update(_described(found, f"one of {len(given)} values such as {some}"))


def _type(found: Json) -> None:
    given = found.get("type")
    listed = given if isinstance(given, list) else [given]
    known = [each for each in listed if isinstance(each, str) and each in _TYPES]
    # OpenAPI's word for what JSON Schema has as a type.
    nullable = found.pop("nullable", None) is True
    if "type" in found:
        if nullable and known and "null" not in known:
            known.append("null")
        if known:
            found["type"] = known if isinstance(given, list) or len(known) > 1 else known[0]
        else:
            del found["type"]
    if "type" not in found and "properties" in found:
        found["type"] = "object"


def _plain(found: Json) -> Json:
    """Return a schema whose lists say what they hold, and which has no empty alternatives."""
    for key in _LISTS:
        if key in found and not found[key]:
            del found[key]
    if "prefixItems" in found:
        held = found.pop("prefixItems") if isinstance(found["prefixItems"], list) else found.pop("prefixItems") and []
        rest = found.get("items")
        kinds = [*held, *([rest] if isinstance(rest, dict) and rest else [])]
        found["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}
        found = _described(found, f"the items are, in order: {json.dumps(held, ensure_ascii=False)}") if held else found
        if rest is False:
            found["maxItems"] = min(len(held), found.get("maxItems", len(held)))
    if isinstance(found.get("items"), bool):
        if found.pop("items") is False:
            found["maxItems"] = 0
        found["items"] = {}
    if found.get("type") == "array" and "items" not in found:
        found["items"] = {}
    return found


def _merged(found: Json) -> Json:
    """Return a schema with what all of its parts demand, in one."""
    for part in found.pop("allOf", ()):
        found = _both(found, part)
    return found


def _both(one: Json, other: Json) -> Json:
    """Return a schema that demands what two demand, as far as one schema can say it."""
    found = {**other, **one}
    if "properties" in one and "properties" in other:
        shared = {key: _both(one["properties"][key], each) for key, each in other["properties"].items()
                  if key in one["properties"]}  # fmt: skip
        found["properties"] = {**one["properties"], **other["properties"], **shared}
    if "required" in one or "required" in other:
        found["required"] = list(dict.fromkeys([*one.get("required", ()), *other.get("required", ())]))
    for key in _ALTERNATIVES:
        if key in one and key in other:
            # Alternatives multiply with each part of `allOf`.
            found[key] = [_both(left, right) for left in one[key] for right in other[key]][:50]
    _narrow(found, one, other)
    texts = [each["description"] for each in (one, other) if isinstance(each.get("description"), str)]
    if len(texts) == 2 and texts[0] != texts[1]:
        found["description"] = " ".join(texts)
    return found


def _narrow(found: Json, one: Json, other: Json) -> None:
    """Let the narrower of two demands hold, in place."""
    for key in one.keys() & other.keys():
        left, right = one[key], other[key]
        if key in _LOWER or key in _UPPER:
            found[key] = (max if key in _LOWER else min)(left, right)
        elif key == "enum":
            # Lists with nothing in common would leave an empty one, which vendors refuse.
            found[key] = [each for each in left if each in right] or left
        elif key == "type":
            both = [each for each in _kinds(left) if each in _kinds(right)] or _kinds(left)
            found[key] = both[0] if len(both) == 1 else both
        elif key in {"items", "additionalProperties"}:
            found[key] = _both(left, right) if isinstance(left, dict) and isinstance(right, dict) else left and right


def _kinds(given: Any) -> list[str]:
    return given if isinstance(given, list) else [given]


def _rooted(schema: Json) -> Json:
    """Return a schema whose root is one object: its alternatives become properties, told apart in words."""
    root = dict(schema)
    for key in _ALTERNATIVES:
        if key in root:
            root = _joined(root, root.pop(key), key)
    for key in ("enum", "const", "not", "if", "then", "else", "dependentSchemas", "dependentRequired"):
        if key in root:
            root = _described(root, json.dumps({key: root.pop(key)}, ensure_ascii=False))
    kind = root.get("type")
    if kind != "object" and root.get("properties") is None and kind not in {None, "null"} and "object" not in kind:
        raise ValueError(f"its arguments are no object but of type {json.dumps(kind)}")
    return {**root, "type": "object", "properties": root.get("properties", {})}


def _joined(root: Json, parts: list[Json], key: str) -> Json:
    """Return a root with the properties of all of its alternatives; required is what each of them requires."""
    options = [part for part in parts if "object" in _kinds(part.get("type", "object"))]
    if not options and "properties" not in root:
        raise ValueError("none of its alternatives is an object")
    properties = dict(root.get("properties", {}))
    for part in options:
        for name, kind in part.get("properties", {}).items():
            if name not in properties:
                properties[name] = kind
            elif kind and properties[name] and properties[name] != kind:
                properties[name] = _either(properties[name], kind)
    required = [set(part.get("required", ())) for part in options]
    always = set.intersection(*required) if required else set()
    wanted = list(dict.fromkeys([*root.get("required", ()), *(name for name in properties if name in always)]))
    found = {**root, "properties": properties, "required": wanted}
    if any(part.get("additionalProperties") is not False for part in options) and len(options) > 1:
        found.pop("additionalProperties", None)
    said = [_option(part) for part in options]
    how = "exactly one" if key == "oneOf" else "one"
    return _described(found, f"Give the arguments of {how} of: {'; or '.join(said)}.") if len(said) > 1 else found


def _either(one: Json, other: Json) -> Json:
    """Return a schema of a property that alternatives see differently."""
    kinds = [*(one["anyOf"] if set(one) == {"anyOf"} else [one]), other]
    return {"anyOf": [each for at, each in enumerate(kinds) if each not in kinds[:at]]}


def _option(part: Json) -> str:
    required = [str(name) for name in part.get("required", ())]
    names = [f"{name} (optional)" if name not in required else name for name in part.get("properties", {})]
    fixed = {
        name: kind.get("const", kind.get("enum"))
        for name, kind in part.get("properties", {}).items()
        if isinstance(kind, dict) and ("const" in kind or len(kind.get("enum", ())) == 1)
    }
    told = ", ".join([*names, *(name for name in required if name not in part.get("properties", {}))]) or "nothing"
    return f"{told} where {json.dumps(fixed, ensure_ascii=False)}" if fixed else told


def _described(found: Json, text: str, *, most: int = _TOLD) -> Json:
    before = found.get("description")
    return {**found, "description": f"{before} {text[:most]}" if isinstance(before, str) and before else text[:most]}


def _in_words(given: Json, *, again: str = "") -> Json:
    """Return an open schema that tells in words what it would hold."""
    kind = given.get("type")
    found: Json = {"type": kind} if isinstance(kind, str) and kind in _TYPES else {}
    if found.get("type") == "array":
        found["items"] = {}
    if isinstance(given.get("description"), str):
        found["description"] = given["description"]
    if again:
        return _described(found, f"Another {again}, as above.")
    return _described(found, json.dumps(given, ensure_ascii=False), most=_TOLD_DEEP)


def _keys_of(schema: Any) -> set[str]:
    """Return the keys of all properties of a schema."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if isinstance(table := each.get("properties"), dict):
                found.update(map(str, table))
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return found
