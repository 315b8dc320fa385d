"""What a message looks like as JSON, worked out once from its descriptor and the options of the contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import orjson
from google.protobuf.descriptor import FieldDescriptor

from letta.jsonmap.v1 import annotations_pb2 as jsonmap

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, OneofDescriptor

    from letta_transcode.descriptors.catalog import Catalog

UNSET: Any = object()
"""Stands for "no default", since null is a value."""


class MappingError(Exception):
    """The options of a message contradict each other; the message says where."""


class Form(Enum):
    """The JSON form of a value."""

    STRING = "string"
    BYTES = "bytes"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    ENUM = "enum"
    RAW = "raw"
    MESSAGE = "message"
    TIMESTAMP = "timestamp"
    DURATION = "duration"
    MOMENT_NUMBER = "moment_number"
    DURATION_NUMBER = "duration_number"
    FIELD_MASK = "field_mask"
    WRAPPER = "wrapper"
    CANONICAL = "canonical"

    @property
    def is_message(self) -> bool:
        """Say whether the value is a message in the proto, so that it has presence and is filled in place."""
        return self in _MESSAGE_FORMS


_MESSAGE_FORMS = frozenset(
    {
        *(Form.MESSAGE, Form.TIMESTAMP, Form.DURATION, Form.MOMENT_NUMBER, Form.DURATION_NUMBER),
        *(Form.FIELD_MASK, Form.WRAPPER, Form.CANONICAL),
    }
)


@dataclass(frozen=True, slots=True)
class Value:
    """One value: its form and what the form needs."""

    form: Form
    message: str = ""
    enum: str = ""
    low: int = 0
    high: int = 0
    single: bool = False
    seconds: bool = False
    unit: int = 0
    inner: Value | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a JSON object and the proto field it stands for."""

    key: str
    path: tuple[str, ...]
    value: Value
    repeated: bool = False
    map_key: Value | None = None
    presence: bool = False
    omit_empty: bool = False
    empty_as_null: bool = False
    required: bool = False
    default: Any = UNSET
    header: str = ""
    query: bool = False
    mask: bool = False
    kept: bool = False
    read: bool = True
    written: bool = True
    event: str = ""
    deprecated: bool = False
    json_file: bool = False
    aliases: tuple[str, ...] = ()
    keyed_by: str = ""

    @property
    def is_list(self) -> bool:
        """Say whether the JSON value is an array."""
        return self.repeated and self.map_key is None


@dataclass(frozen=True, slots=True)
class Member:
    """One alternative of a union."""

    field: Field
    tags: tuple[str, ...]
    keys: tuple[str, ...]
    nested: bool = False


class Choice(Enum):
    """How the member of a union is chosen."""

    TAG = "tag"
    KIND = "kind"
    KEYS = "keys"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Union:
    """A oneof."""

    name: str
    path: tuple[str, ...]
    choice: Choice
    members: tuple[Member, ...]
    key: str = ""
    default_tag: str = ""


@dataclass(frozen=True, slots=True)
class Constant:
    """A key that always has the same value."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class Alias:
    """Another key of a field's value, as it is written."""

    key: str
    field: Field


Part = Field | Union | Constant | Alias


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """A message: its keys and unions in the order of the contract."""

    name: str
    parts: tuple[Part, ...]
    transparent: bool = False

    @property
    def only(self) -> Field | Union:
        """Return the one part of a transparent message."""
        part = self.parts[0]
        if isinstance(part, Constant | Alias):
            raise MappingError(f"{self.name} is transparent, so it can have no keys")
        return part

    def fields(self) -> tuple[Field, ...]:
        """Return the keys outside of unions, and those of plain oneofs, whether read or written."""
        found: list[Field] = []
        for part in self.parts:
            if isinstance(part, Field):
                found.append(part)
            elif isinstance(part, Union) and part.choice is Choice.PLAIN:
                found.extend(member.field for member in part.members)
        return tuple(found)


_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
# JSON has a form of its own for these.
_KNOWN = {
    "google.protobuf.Timestamp": Form.TIMESTAMP,
    "google.protobuf.Duration": Form.DURATION,
    "google.protobuf.FieldMask": Form.FIELD_MASK,
    "google.protobuf.Any": Form.CANONICAL,
    "google.protobuf.Struct": Form.CANONICAL,
    "google.protobuf.Value": Form.CANONICAL,
    "google.protobuf.ListValue": Form.CANONICAL,
}
_UNITS = {
    jsonmap.DURATION_UNIT_NANOS: 1,
    jsonmap.DURATION_UNIT_MILLIS: 1_000_000,
    jsonmap.DURATION_UNIT_SECONDS: 1_000_000_000,
}
"""Nanoseconds of each unit."""
_MOMENT_UNITS = {jsonmap.TIMESTAMP_FORMAT_NANOS: 1, jsonmap.TIMESTAMP_FORMAT_UNIX: 1_000_000_000}
"""The same of moments that are numbers."""
# In JSON these are the value that they hold, or null.
_WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)


class Planner:
    """Makes the plans of a catalog's messages; each is made once."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._plans: dict[str, MessagePlan] = {}

    def plan(self, name: str) -> MessagePlan:
        """Return the plan of a message. Raises MappingError."""
        made = self._plans.get(name)
        if made is None:
            descriptor = self._catalog.message(name)
            transparent = self._catalog.message_mapping(name).transparent
            parts = self._parts(descriptor, (), (name,))
            if transparent and len(parts) != 1:
                raise MappingError(f"{name} is transparent, so it must have one field or one oneof, not {len(parts)}")
            made = self._plans[name] = MessagePlan(name, parts, transparent)
        return made

    def without(self, plan: MessagePlan, fields: frozenset[str]) -> MessagePlan:
        """Return a plan less some fields of the message, given by proto name."""
        kept: list[Part] = []
        for part in plan.parts:
            if _first(part) in fields:
                continue
            if isinstance(part, Union):
                members = tuple(m for m in part.members if m.field.path[0] not in fields)
                kept.append(replace(part, members=members))
            else:
                kept.append(part)
        return replace(plan, parts=tuple(kept))

    def field(self, message: str, name: str) -> Field:
        """Return the plan of one field, found by its proto name. Raises MappingError when there is none."""
        return self.field_at(message, (name,))

    def field_at(self, message: str, path: tuple[str, ...]) -> Field:
        """Return the plan of the field at a path of proto names. Raises MappingError when there is none."""
        descriptor = self._catalog.message(message)
        for name in path[:-1]:
            step = descriptor.fields_by_name.get(name)
            if step is None or step.message_type is None or step.is_repeated:
                raise MappingError(f"{message} has no message field {name!r}")
            descriptor = step.message_type
        found = descriptor.fields_by_name.get(path[-1])
        if found is None:
            raise MappingError(f"{descriptor.full_name} has no field {path[-1]!r}")
        return replace(self._field(found), path=path)

    def _parts(self, descriptor: Descriptor, path: tuple[str, ...], seen: tuple[str, ...]) -> tuple[Part, ...]:
        parts: dict[str, tuple[Part, ...]] = {}
        added: list[tuple[jsonmap.KeyMapping, Part]] = []
        for field in descriptor.fields:
            mapping = self._catalog.field_mapping(field.full_name)
            oneof = field.containing_oneof
            if mapping.hidden:
                continue
            if oneof is not None and not _synthetic(oneof):
                if oneof.name not in parts:
                    parts[oneof.name] = (self._union(oneof, path),)
            elif mapping.flatten:
                places = {each.key: each for each in mapping.flattened_keys}
                inside = self._flattened(field, path, seen)
                parts[field.name] = tuple(part for part in inside if part.key not in places)
                added.extend((places[part.key], part) for part in inside if part.key in places)
                if lacking := places.keys() - {part.key for part in inside}:
                    raise MappingError(f"{field.full_name} has no key {min(lacking)!r} to stand elsewhere")
            else:
                plan = self._field(field)
                plan = replace(plan, path=(*path, *plan.path))
                parts[field.name] = (plan,)
                added.extend((alias, Alias(alias.key, plan)) for alias in mapping.aliases)
        for constant in self._catalog.message_mapping(descriptor.full_name).constants:
            text = f"{descriptor.full_name}: the constant {constant.key}"
            added.append((constant, Constant(constant.key, _json(text, constant.json))))
        return _placed(descriptor.full_name, parts, added)

    def _flattened(self, field: FieldDescriptor, path: tuple[str, ...], seen: tuple[str, ...]) -> tuple[Part, ...]:
        target = field.message_type
        if target is None or field.is_repeated:
            raise MappingError(f"{field.full_name} is flattened, so it must be a single message")
        if target.full_name in seen:
            raise MappingError(f"{field.full_name} is flattened into itself")
        return self._parts(target, (*path, field.name), (*seen, target.full_name))

    def _field(self, field: FieldDescriptor) -> Field:
        mapping = self._catalog.field_mapping(field.full_name)
        map_key: Value | None = None
        source = field
        if _is_map(field):
            entry: Any = field.message_type
            map_key = self._value(entry.fields_by_name["key"], mapping)
            source = entry.fields_by_name["value"]
        return Field(
            key=mapping.name or field.name,
            path=(field.name,),
            value=self._value(source, mapping),
            repeated=field.is_repeated,
            map_key=map_key,
            presence=field.has_presence,
            omit_empty=mapping.omit_empty,
            empty_as_null=mapping.empty_as_null,
            required=mapping.required,
            default=_default(field, mapping),
            header=mapping.header.lower(),
            query=mapping.query,
            mask=mapping.mask,
            kept=self._catalog.is_kept(field.full_name),
            read=not self._catalog.is_output(field.full_name),
            written=not mapping.write_only,
            event=mapping.sse_event,
            deprecated=field.GetOptions().deprecated,
            json_file=mapping.json_file,
            aliases=tuple(alias.key for alias in mapping.aliases),
            keyed_by=_keyed_by(field, mapping),
        )

    def _value(self, field: FieldDescriptor, mapping: jsonmap.FieldMapping) -> Value:
        kind = field.cpp_type
        if field.message_type is not None:
            return self._message_value(field.message_type, mapping)
        if field.enum_type is not None:
            return Value(Form.ENUM, enum=field.enum_type.full_name)
        if kind == FieldDescriptor.CPPTYPE_STRING:
            raw = mapping.raw and not _is_map_key(field)
            text = Form.RAW if raw else Form.STRING
            return Value(Form.BYTES if field.type == FieldDescriptor.TYPE_BYTES else text)
        if kind in _RANGES:
            low, high = _RANGES[kind]
            return Value(Form.INT, low=low, high=high)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return Value(Form.BOOL)
        return Value(Form.FLOAT, single=kind == FieldDescriptor.CPPTYPE_FLOAT)

    def _message_value(self, message: Descriptor, mapping: jsonmap.FieldMapping) -> Value:
        name = message.full_name
        if name in _WRAPPERS:
            return Value(Form.WRAPPER, message=name, inner=self._value(message.fields_by_name["value"], mapping))
        form = _KNOWN.get(name, Form.MESSAGE)
        if form is Form.TIMESTAMP and mapping.timestamp_format in _MOMENT_UNITS:
            return Value(Form.MOMENT_NUMBER, message=name, unit=_MOMENT_UNITS[mapping.timestamp_format])
        if form is Form.DURATION and mapping.duration_unit:
            return Value(Form.DURATION_NUMBER, message=name, unit=_UNITS[mapping.duration_unit])
        seconds = mapping.timestamp_format == jsonmap.TIMESTAMP_FORMAT_SECONDS
        return Value(form, message=name, seconds=seconds)

    def _union(self, oneof: OneofDescriptor, path: tuple[str, ...]) -> Union:
        mapping = self._catalog.oneof_mapping(_oneof_name(oneof))
        choice = _choice(mapping)
        members: list[Member] = []
        for field in oneof.fields:
            options = self._catalog.field_mapping(field.full_name)
            if options.hidden:
                continue
            plan = self._field(field)
            tags, nested = self._tags(field, options, mapping.discriminator)
            members.append(Member(replace(plan, path=(*path, field.name)), tags, tuple(options.keys), nested))
            if choice in (Choice.TAG, Choice.KEYS) and plan.value.form is not Form.MESSAGE:
                raise MappingError(f"{field.full_name} stands inline in its union, so it must be a message")
        if choice is Choice.TAG and mapping.default_tag:
            known = {tag for member in members for tag in member.tags}
            if mapping.default_tag not in known:
                raise MappingError(f"{_oneof_name(oneof)}: no member has the default tag {mapping.default_tag!r}")
        key = mapping.discriminator if choice is Choice.TAG else mapping.name or oneof.name
        return Union(oneof.name, (*path, oneof.name), choice, tuple(members), key, mapping.default_tag)

    def _tags(
        self, field: FieldDescriptor, options: jsonmap.FieldMapping, discriminator: str
    ) -> tuple[tuple[str, ...], bool]:
        """Return the tags that select a member: its own, or those of a union with the same key inside of it."""
        if options.tag or not discriminator or field.message_type is None:
            return (options.tag or field.name,), False
        for oneof in field.message_type.oneofs:
            if self._catalog.oneof_mapping(_oneof_name(oneof)).discriminator == discriminator:
                inner: list[str] = []
                for member in oneof.fields:
                    inner.extend(self._tags(member, self._catalog.field_mapping(member.full_name), discriminator)[0])
                return tuple(inner), True
        return (field.name,), False


def enum_names(catalog: Catalog, enum: EnumDescriptor) -> dict[int, Any]:
    """Return the JSON value of each number of an enum, a string but for those that say otherwise; None writes null."""
    prefix = enum_prefix(enum)
    always = catalog.enum_mapping(enum.full_name).unspecified_as_null
    names: dict[int, Any] = {}
    for value in enum.values:
        mapping = catalog.value_mapping(enum.full_name, value.name)
        if mapping.json:
            names.setdefault(value.number, _json(f"{enum.full_name}.{value.name}", mapping.json))
            continue
        own = mapping.name
        if not own and value.number == 0 and (always or value.name.endswith("_UNSPECIFIED")):
            names.setdefault(0, None)
        else:
            names.setdefault(value.number, own or value.name.removeprefix(prefix).lower())
    return names


def enum_prefix(enum: EnumDescriptor) -> str:
    """Return what the names of an enum's values begin with: the enum's own name in upper snake case."""
    first = enum.values[0].name
    if first.endswith("_UNSPECIFIED"):
        return first.removesuffix("UNSPECIFIED")
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", enum.name)
    return f"{words.upper()}_"


def _choice(mapping: jsonmap.OneofMapping) -> Choice:
    if mapping.discriminator:
        return Choice.TAG
    if mapping.untagged:
        return Choice.KIND
    return Choice.KEYS if mapping.by_keys else Choice.PLAIN


def _keyed_by(field: FieldDescriptor, mapping: jsonmap.FieldMapping) -> str:
    if mapping.keyed_by:
        key = field.message_type.fields_by_name.get(mapping.keyed_by) if field.message_type is not None else None
        if not field.is_repeated or key is None or key.cpp_type != FieldDescriptor.CPPTYPE_STRING:
            raise MappingError(f"{field.full_name}: no messages that {mapping.keyed_by!r}, a string, tells apart")
    return mapping.keyed_by


def _default(field: FieldDescriptor, mapping: jsonmap.FieldMapping) -> Any:
    return _json(f"{field.full_name}: default_json", mapping.default_json) if mapping.default_json else UNSET


def _json(what: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MappingError(f"{what} is no JSON: {error}") from error


def _first(part: Part) -> str:
    """Return the proto name of the field that a part belongs to, or an empty string for a constant."""
    if isinstance(part, Constant):
        return ""
    return part.field.path[0] if isinstance(part, Alias) else part.path[0]


def _placed(
    message: str, parts: Mapping[str, tuple[Part, ...]], added: list[tuple[jsonmap.KeyMapping, Part]]
) -> tuple[Part, ...]:
    """Return the parts of a message in order, with the keys that stand for no field of their own where they belong."""
    order = [(name, part) for name, several in parts.items() for part in several]
    for mapping, part in added:
        if any(each.key == mapping.key and _meet(each, part) for _, each in order):
            raise MappingError(f"{message} has the key {mapping.key!r} twice")
        names = [name for name, _ in order]
        if mapping.before and mapping.before not in names:
            raise MappingError(f"{message}: {mapping.key!r} should stand before {mapping.before!r}, which is not there")
        order.insert(names.index(mapping.before) if mapping.before else len(order), ("", part))
    return tuple(part for _, part in order)


def _meet(one: Part, other: Part) -> bool:
    """Say whether two parts are both read or both written."""
    return any(map(all, zip(_ways(one), _ways(other), strict=True)))


def _ways(part: Part) -> tuple[bool, bool]:
    """Say whether a part is read, and whether it is written."""
    field = part.field if isinstance(part, Alias) else part
    return (field.read, field.written) if isinstance(field, Field) else (isinstance(field, Union), True)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_map_key(field: FieldDescriptor) -> bool:
    entry = field.containing_type
    return entry is not None and entry.GetOptions().map_entry and field.name == "key"


def _oneof_name(oneof: OneofDescriptor) -> str:
    return f"{oneof.containing_type.full_name}.{oneof.name}"


def _synthetic(oneof: OneofDescriptor) -> bool:
    """Say whether a oneof stands only for `optional`."""
    return len(oneof.fields) == 1 and oneof.name == f"_{oneof.fields[0].name}"
