"""JSON schemas of TypeScript types, read from syntax trees."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tree_sitter import Node

from letta_tool_schemas.typescript.comments import comment_before
from letta_tool_schemas.typescript.trees import has, text

Schema = dict[str, Any]

_PREDEFINED: dict[str, Schema] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "any": {},
    "unknown": {},
}
# A schema has one way to say that nothing is there, where TypeScript has three.
_NOTHING = {"null", "undefined", "void"}
# TypeScript does not tell whole numbers from others.
_KINDS = {str: "string", bool: "boolean", int: "number", float: "number"}
# Bounds for hostile source: a type may name types that name types, each of them twice.
_MAX_DEPTH = 32
_MAX_NODES = 20_000


class UnsupportedType(Exception):
    """A type that no JSON schema can be made of."""


class Types:
    """Turns types into schemas, given the interfaces and aliases that the module declares."""

    def __init__(self, root: Node) -> None:
        self._left = _MAX_NODES
        self._readers: dict[str, Callable[[Node, tuple[str, ...]], Schema]] = {
            "parenthesized_type": self._wrapped,
            "readonly_type": self._wrapped,
            "optional_type": self._wrapped,
            "predefined_type": self._simple,
            "literal_type": self._simple,
            "union_type": self._union,
            "array_type": self._array,
            "tuple_type": self._tuple,
            "object_type": self._object,
            "intersection_type": self._intersection,
            "type_identifier": self._named,
            "generic_type": self._generic,
            "template_literal_type": lambda _node, _inside: {"type": "string"},
        }
        self._declared: dict[str, Node] = {}
        for statement in root.named_children:
            for node in (statement, *statement.named_children):
                name = text(node.child_by_field_name("name"))
                if node.type in {"interface_declaration", "type_alias_declaration"} and name not in self._declared:
                    self._declared[name] = node

    def schema(self, node: Node) -> Schema:
        """Return the schema of a type; null and undefined in a union are left out. Raises UnsupportedType."""
        return self._schema(node, ())

    def allows(self, node: Node, *nothing: str) -> bool:
        """Say whether a type is a union with one of these in it."""
        return any(text(member) in nothing for member in self._members(node, ()))

    def _schema(self, node: Node, inside: tuple[str, ...]) -> Schema:
        self._left -= 1
        if self._left < 0 or len(inside) > _MAX_DEPTH:
            raise UnsupportedType("it is too large or nested too deeply")
        read = self._readers.get(node.type)
        if read is None:
            raise UnsupportedType(f"`{text(node)[:80]}` has no JSON form")
        return read(node, inside if node.type == "type_identifier" else (*inside, ""))

    def _wrapped(self, node: Node, inside: tuple[str, ...]) -> Schema:
        return self._schema(_inner(node), inside)

    def _array(self, node: Node, inside: tuple[str, ...]) -> Schema:
        return {"type": "array", "items": self._schema(_inner(node), inside)}

    def _simple(self, node: Node, _inside: tuple[str, ...]) -> Schema:
        written = text(node)
        if written in _NOTHING:
            return {"type": "null"}
        if node.type == "predefined_type":
            if written not in _PREDEFINED:
                raise UnsupportedType(f"`{written}` has no JSON form")
            return dict(_PREDEFINED[written])
        return _enumeration([_literal(node)])

    def _members(self, node: Node, seen: tuple[str, ...]) -> Iterator[Node]:
        """Yield the members of a union, also of one that is named."""
        if node.type == "union_type":
            for child in node.named_children:
                yield from self._members(child, seen)
        elif node.type in {"parenthesized_type", "readonly_type"}:
            yield from self._members(_inner(node), seen)
        else:
            name = text(node) if node.type == "type_identifier" else ""
            declared = self._declared.get(name) if name not in seen else None
            value = declared.child_by_field_name("value") if declared is not None else None
            if value is not None and value.type in {"union_type", "parenthesized_type", "readonly_type"}:
                yield from self._members(value, (*seen, name))
            else:
                yield node

    def _union(self, node: Node, inside: tuple[str, ...]) -> Schema:
        members = [member for member in self._members(node, ()) if text(member) not in _NOTHING]
        literals = [member for member in members if member.type == "literal_type"]
        schemas = [self._schema(member, inside) for member in members if member.type != "literal_type"]
        if literals:
            schemas.insert(0, _enumeration([_literal(member) for member in literals]))
        distinct = [schema for index, schema in enumerate(schemas) if schema not in schemas[:index]]
        if not distinct:
            return {"type": "null"}
        return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}

    def _tuple(self, node: Node, inside: tuple[str, ...]) -> Schema:
        elements = [child for child in node.named_children if child.type != "comment"]
        if any(child.type == "rest_type" for child in elements):
            raise UnsupportedType(f"`{text(node)[:80]}`: a tuple must have a fixed length")
        named = [_annotated(child) if child.type.endswith("_parameter") else child for child in elements]
        items = [self._schema(child, inside) for child in named]
        kinds = [schema for index, schema in enumerate(items) if schema not in items[:index]]
        each = {} if not kinds else kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        least = sum(child.type not in {"optional_type", "optional_parameter"} for child in elements)
        return {"type": "array", "prefixItems": items, "items": each, "minItems": least, "maxItems": len(items)}

    def _object(self, node: Node, inside: tuple[str, ...]) -> Schema:
        properties: Schema = {}
        required: list[str] = []
        more: Schema | None = None
        for member in node.named_children:
            if member.type == "index_signature":
                more = self._schema(_annotated(member), inside)
            elif member.type == "property_signature":
                name = _key(member)
                hint = _annotated(member)
                described = comment_before(member).description
                properties[name] = {**self._schema(hint, inside), **({"description": described} if described else {})}
                if not has(member, "?") and not self.allows(hint, "undefined"):
                    required.append(name)
            elif member.type != "comment":
                raise UnsupportedType(f"`{text(member)[:80]}` has no JSON form")
        if more is not None and not properties:
            return {"type": "object", "additionalProperties": more} if more else {"type": "object"}
        return {"type": "object", "properties": properties, "required": required}

    def _intersection(self, node: Node, inside: tuple[str, ...]) -> Schema:
        merged: Schema = {"type": "object", "properties": {}, "required": []}
        for child in node.named_children:
            _merge(merged, self._schema(child, inside), text(node))
        return merged

    def _named(self, node: Node, inside: tuple[str, ...]) -> Schema:
        name = text(node)
        declared = self._declared.get(name)
        if declared is None:
            raise UnsupportedType(f"`{name}` has no JSON form")
        if name in inside:
            raise UnsupportedType(f"`{name}` contains itself")
        if declared.child_by_field_name("type_parameters") is not None:
            raise UnsupportedType(f"`{name}` is generic")
        schema = self._declaration(declared, (*inside, name))
        statement = (
            declared.parent if declared.parent is not None and declared.parent.type == "export_statement" else None
        )
        described = comment_before(statement or declared).description
        return {"description": described, **schema} if described else schema

    def _declaration(self, node: Node, inside: tuple[str, ...]) -> Schema:
        value = node.child_by_field_name("value")
        if value is not None:
            return self._schema(value, inside)
        merged: Schema = {"type": "object", "properties": {}, "required": []}
        for child in node.named_children:
            if child.type == "extends_type_clause":
                for base in child.named_children:
                    _merge(merged, self._schema(base, inside), text(node))
            elif child.type == "interface_body":
                own = self._object(child, inside)
                if not merged["properties"] and "properties" not in own:
                    return own
                _merge(merged, own, text(node))
        return merged

    def _generic(self, node: Node, inside: tuple[str, ...]) -> Schema:
        name = text(node.child_by_field_name("name"))
        arguments = node.child_by_field_name("type_arguments")
        given = [child for child in arguments.named_children if child.type != "comment"] if arguments else []
        if name in {"Array", "ReadonlyArray"} and len(given) == 1:
            return {"type": "array", "items": self._schema(given[0], inside)}
        if name == "Record" and len(given) == 2:
            values = self._schema(given[1], inside)
            return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
        if name in {"Readonly", "Partial", "Required"} and len(given) == 1:
            schema = self._schema(given[0], inside)
            if name == "Readonly" or "properties" not in schema:
                return schema
            return {**schema, "required": [] if name == "Partial" else list(schema["properties"])}
        if name in {"Pick", "Omit"} and len(given) == 2:
            return self._part(name, given, inside)
        raise UnsupportedType(f"`{text(node)[:80]}` has no JSON form")

    def _part(self, name: str, given: list[Node], inside: tuple[str, ...]) -> Schema:
        schema = self._schema(given[0], inside)
        if "properties" not in schema:
            raise UnsupportedType(f"`{name}` takes members from what has no known ones")
        names = self._schema(given[1], inside).get("enum", [])
        kept = [key for key in schema.get("properties", {}) if (key in names) == (name == "Pick")]
        properties = {key: schema["properties"][key] for key in kept}
        return {**schema, "properties": properties, "required": [key for key in schema["required"] if key in kept]}


def _merge(merged: Schema, schema: Schema, whole: str) -> None:
    """Add the properties of an object to those of another one."""
    if "properties" not in schema:
        raise UnsupportedType(f"`{whole[:80]}` joins what is no object with known properties")
    merged["required"] = [key for key in merged["required"] if key not in schema["properties"]] + schema["required"]
    merged["properties"] |= schema["properties"]


def _inner(node: Node) -> Node:
    return next(child for child in node.named_children if child.type != "comment")


def _annotated(node: Node) -> Node:
    """Return the type that a member or parameter is annotated with."""
    annotation = node.child_by_field_name("type")
    if annotation is None:
        raise UnsupportedType(f"`{text(node)[:80]}` needs a type")
    return _inner(annotation) if annotation.type == "type_annotation" else annotation


def _key(member: Node) -> str:
    name = member.child_by_field_name("name")
    if name is not None and name.type == "string":
        return string(name)
    if name is None or name.type not in {"property_identifier", "number"}:
        raise UnsupportedType(f"`{text(member)[:80]}` has a computed name")
    return text(name)


def string(node: Node) -> str:
    """Return the value of a string literal. Raises UnsupportedType for escapes that JSON does not know."""
    inner = text(node)[1:-1]
    if "\\" not in inner:
        return inner
    try:
        return str(json.loads('"' + inner.replace('"', '\\"').replace("\\'", "'") + '"'))
    except ValueError as error:
        raise UnsupportedType(f"`{text(node)[:80]}` has escapes that are not understood") from error


def _literal(node: Node) -> str | int | float | bool:
    value = _inner(node) if node.named_children else node
    written = text(value)
    if value.type == "string":
        return string(value)
    if written in {"true", "false"}:
        return written == "true"
    try:
        number = json.loads(written.replace("_", ""))
    except ValueError as error:
        raise UnsupportedType(f"`{written[:80]}` has no JSON form") from error
    if isinstance(number, (int, float)):
        return number
    raise UnsupportedType(f"`{written[:80]}` has no JSON form")


def _enumeration(values: list[str | int | float | bool]) -> Schema:
    kinds = {_KINDS[type(value)] for value in values}
    distinct = [value for index, value in enumerate(values) if not _among(value, values[:index])]
    return {"type": kinds.pop(), "enum": distinct} if len(kinds) == 1 else {"enum": distinct}


def _among(value: object, values: list[Any]) -> bool:
    return any(type(value) is type(other) and value == other for other in values)
