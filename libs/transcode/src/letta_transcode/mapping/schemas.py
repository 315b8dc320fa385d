"""JSON schemas of messages, made from the same plans as the codecs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from letta_transcode.mapping.plans import (
    UNSET,
    Alias,
    Choice,
    Constant,
    Field,
    Form,
    Member,
    MessagePlan,
    Union,
    Value,
    enum_names,
)

if TYPE_CHECKING:
    from letta_transcode.mapping.codecs import Codecs

Schema = dict[str, Any]

_SIMPLE: dict[Form, Schema] = {
    Form.STRING: {"type": "string"},
    Form.BYTES: {"type": "string", "contentEncoding": "base64"},
    Form.BOOL: {"type": "boolean"},
    Form.FLOAT: {"type": "number"},
    # Any JSON: a schema that says nothing allows everything.
    Form.RAW: {},
    Form.TIMESTAMP: {"type": "string", "format": "date-time"},
    Form.DURATION: {"type": "string", "format": "duration"},
    Form.MOMENT_NUMBER: {"type": "integer", "format": "int64"},
    Form.DURATION_NUMBER: {"type": "integer", "format": "int64"},
    Form.FIELD_MASK: {"type": "string"},
}
_CANONICAL: dict[str, Schema] = {
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}},
}


class Schemas:
    """Collects the schemas of messages and enums under short names, shared by all servers of a document."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._names: dict[str, str] = {}

    def message(self, codecs: Codecs, name: str) -> Schema:
        """Return a reference to the schema of a message."""
        if name not in self._names:
            short = self._claim(name)
            # Taken before its schema is made, since a message may contain itself.
            self.components[short] = {}
            self.components[short] = self.object(codecs, codecs.planner.plan(name))
        return {"$ref": f"#/components/schemas/{self._names[name]}"}

    def field(self, codecs: Codecs, field: Field) -> Schema:
        """Return the schema of a field's value."""
        schema = self._value(codecs, field.value)
        if field.map_key is not None or field.keyed_by:
            schema = {"type": "object", "additionalProperties": schema}
        elif field.repeated:
            schema = {"type": "array", "items": schema}
        if field.default is not UNSET:
            schema = {**schema, "default": field.default}
        nullable = field.empty_as_null or (field.presence and not field.omit_empty and not field.required)
        schema = _nullable(schema) if nullable else schema
        return {**schema, "deprecated": True} if field.deprecated else schema

    def object(self, codecs: Codecs, plan: MessagePlan) -> Schema:
        """Return the schema of a message by a plan."""
        if plan.transparent:
            only = plan.only
            return self.field(codecs, only) if isinstance(only, Field) else self._union(codecs, only)
        properties: dict[str, Schema] = {}
        required: list[str] = []
        choices: list[Schema] = []
        for part in plan.parts:
            if isinstance(part, Union) and part.choice in (Choice.TAG, Choice.KEYS):
                choices.append(self._union(codecs, part))
            elif isinstance(part, Union) and part.choice is Choice.KIND:
                properties[part.key] = _nullable(self._union(codecs, part))
            elif isinstance(part, Constant):
                properties[part.key] = {"const": part.value}
            elif isinstance(part, Alias):
                _join(
                    properties, part.key, {**_directed(self.field(codecs, part.field), part.field), "deprecated": True}
                )
        for field in plan.fields():
            if not field.header and not field.mask:
                _join(properties, field.key, _directed(self.field(codecs, field), field))
                required += [field.key] if field.required else []
        made: Schema = {"type": "object", "properties": properties}
        if required:
            made["required"] = required
        if choices:
            return {"allOf": [made, *choices]} if properties or len(choices) > 1 else choices[0]
        return made

    def _union(self, codecs: Codecs, union: Union) -> Schema:
        if union.choice is not Choice.TAG:
            return {"anyOf": [self.field(codecs, _bare(member)) for member in union.members]}
        variants: list[Schema] = []
        mapping: dict[str, str] = {}
        for member in union.members:
            reference = self.message(codecs, member.field.value.message)
            if not member.nested:
                reference = self._tagged(member, union, reference)
            variants.append(reference)
            mapping |= {tag: str(reference["$ref"]) for tag in member.tags}
        return {"oneOf": variants, "discriminator": {"propertyName": union.key, "mapping": mapping}}

    def _tagged(self, member: Member, union: Union, reference: Schema) -> Schema:
        """Return a reference to a member with its tag."""
        name = f"{reference['$ref'].rpartition('/')[2]}.{member.tags[0]}"
        tag: Schema = {"type": "string", "const": member.tags[0]}
        own: Schema = {"type": "object", "properties": {union.key: tag}}
        if member.tags[0] != union.default_tag:
            own["required"] = [union.key]
        self.components[name] = {"allOf": [own, reference]}
        return {"$ref": f"#/components/schemas/{name}"}

    def _value(self, codecs: Codecs, value: Value) -> Schema:
        if value.form is Form.INT:
            # Unsigned numbers of 32 bits are int32 with a minimum, since OpenAPI has no format for them.
            wide = value.high > 2**32
            return {"type": "integer", "format": "int64" if wide else "int32"} | (
                {"minimum": 0} if not value.low else {}
            )
        if value.form is Form.ENUM:
            return self._enum(codecs, value.enum)
        if value.form is Form.WRAPPER and value.inner is not None:
            return _nullable(self._value(codecs, value.inner))
        if value.form is Form.CANONICAL:
            return dict(_CANONICAL.get(value.message, {}))
        if value.form is Form.MESSAGE:
            return self.message(codecs, value.message)
        return dict(_SIMPLE[value.form])

    def _enum(self, codecs: Codecs, name: str) -> Schema:
        if name not in self._names:
            found = enum_names(codecs.catalog, codecs.catalog.enum(name)).values()
            known = [value for value in found if value is not None]
            kind = {"type": "string"} if all(isinstance(value, str) for value in known) else {}
            self.components[self._claim(name)] = {**kind, "enum": known}
        return {"$ref": f"#/components/schemas/{self._names[name]}"}

    def _claim(self, name: str) -> str:
        short = name.rpartition(".")[2]
        # Two packages may have a message of one name; the second one keeps its package.
        self._names[name] = name if short in self.components else short
        return self._names[name]


def _bare(member: Member) -> Field:
    """Return a member as a value that is there."""
    field = member.field
    return Field(field.key, field.path, field.value, repeated=field.repeated, map_key=field.map_key)


def body_of(plan: MessagePlan) -> MessagePlan:
    """Return the plan of what a request may hold."""
    fields = [(part.field if isinstance(part, Alias) else part, part) for part in plan.parts]
    return replace(plan, parts=tuple(part for field, part in fields if not isinstance(field, Field) or field.read))


def _join(properties: dict[str, Schema], key: str, schema: Schema) -> None:
    """Add a key, which may mean one thing in requests and another one in answers."""
    other = properties.get(key)
    properties[key] = schema if other is None else {"anyOf": [other, schema]}


def _directed(schema: Schema, field: Field) -> Schema:
    """Say in which direction a key goes, where it goes in one alone."""
    if not field.written:
        return {**schema, "writeOnly": True}
    return schema if field.read else {**schema, "readOnly": True}


def _nullable(schema: Schema) -> Schema:
    if not schema:
        return schema
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    # The default and the deprecation are those of the whole and not of one alternative.
    known: Schema = {key: schema[key] for key in ("default", "deprecated") if key in schema}
    return {"anyOf": [{key: schema[key] for key in schema if key not in known}, {"type": "null"}], **known}
