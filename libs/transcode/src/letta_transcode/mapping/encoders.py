"""Compiles, for each message, the function that turns it into what `orjson` writes."""

from __future__ import annotations

from collections.abc import Callable
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from letta_transcode.mapping import values
from letta_transcode.mapping.compilers import Compiler
from letta_transcode.mapping.plans import (
    Alias,
    Choice,
    Constant,
    Field,
    Form,
    Member,
    MessagePlan,
    Part,
    Union,
    Value,
    enum_names,
)

if TYPE_CHECKING:
    from letta_transcode.descriptors.catalog import Catalog
    from letta_transcode.mapping.plans import Planner

Encoder = Callable[[Any], Any]

_WRITERS = {
    Form.BYTES: "base64_text",
    Form.RAW: "raw",
    Form.DURATION: "duration",
    Form.MOMENT_NUMBER: "number",
    Form.DURATION_NUMBER: "number",
    Form.FIELD_MASK: "field_mask",
    Form.CANONICAL: "canonical",
}


class Encoders(Compiler[Encoder]):
    """Compiled encoders of a catalog's messages."""

    parameters = "m"

    def __init__(self, catalog: Catalog, planner: Planner) -> None:
        scope = {
            "base64_text": values.base64_text,
            "raw": values.raw,
            "shortest": values.shortest,
            "singles": values.singles,
            "timestamp": values.timestamp,
            "timestamp_seconds": values.timestamp_seconds,
            "number": values.number,
            "duration": values.duration,
            "field_mask": values.field_mask,
            "canonical": values.canonical_writer(catalog.pool),
        }
        super().__init__(catalog, planner, scope)

    def field(self, field: Field) -> Encoder:
        """Return the encoder of one field of a message: it takes the message and returns the field's JSON value."""
        return self._whole(lambda: self._apart([f"return {self._field(field, 'm')}"]))

    def _body(self, plan: MessagePlan) -> list[str]:
        if plan.transparent:
            only = plan.only
            if isinstance(only, Field):
                return [f"return {self._field(only, 'm')}"]
            if only.choice is Choice.KIND:
                return [*self._kind(only, "v"), "return v"]
            return ["d = {}", *self._inline(only), "return d or None"]
        lines: list[str] = ["d = {"]
        literal = True
        for part in plan.parts:
            if (field := _field_of(part)) is not None and not field.written:
                continue
            # Keys that are always written go into one dict display, which is faster than setting them one by one.
            if literal and (always := self._always(part)) is not None:
                lines.append(f"    {part.key!r}: {always},")
                continue
            if literal:
                literal = False
                lines.append("}")
            lines.extend(self._part(part))
        if literal:
            lines.append("}")
        return [*lines, "return d"]

    def _always(self, part: Part) -> str | None:
        """Return the expression of the value of a key that is always written; None where it may be left out."""
        if isinstance(part, Constant):
            return repr(part.value)
        field = _field_of(part)
        return self._field(field, "m") if field is not None and not field.omit_empty else None

    def _part(self, part: Part) -> list[str]:
        if isinstance(part, Union):
            return self._choice(part)
        always, field = self._always(part), _field_of(part)
        if always is not None or field is None:
            return [f"d[{part.key!r}] = {always}"]
        return [f"if {_present(field, 'm')}:", f"    d[{part.key!r}] = {self._field(field, 'm', test=False)}"]

    def _choice(self, part: Union) -> list[str]:
        if part.choice is Choice.PLAIN:
            return [line for member in part.members for line in self._part(member.field)]
        if part.choice is Choice.KIND:
            return [*self._kind(part, "v"), f"d[{part.key!r}] = v"]
        return self._inline(part)

    def _kind(self, union: Union, target: str) -> list[str]:
        lines = [f"w = {_which(union)}"]
        word = "if"
        for member in union.members:
            lines.append(f"{word} w == {member.field.path[-1]!r}:")
            lines.append(f"    {target} = {self._field(member.field, 'm', test=False)}")
            word = "elif"
        return [*lines, "else:", f"    {target} = None"] if union.members else [f"{target} = None"]

    def _inline(self, union: Union) -> list[str]:
        lines = [f"w = {_which(union)}"]
        word = "if"
        for member in union.members:
            lines.append(f"{word} w == {member.field.path[-1]!r}:")
            lines.extend(f"    {line}" for line in self._member(union, member))
            word = "elif"
        return lines

    def _member(self, union: Union, member: Member) -> list[str]:
        inner = f"d.update({self._field(member.field, 'm', test=False)} or ())"
        if union.choice is Choice.TAG and not member.nested:
            set_tag = f"d[{union.key!r}] = {member.tags[0]!r}"
            # First for its place among the keys, and again in case the member has a key of that name.
            return [set_tag, inner, set_tag]
        return [inner]

    def _field(self, field: Field, source: str, *, test: bool = True) -> str:
        place = _place(source, field.path)
        if field.map_key is not None:
            key = _map_key(field.map_key)
            text = f"{{{key}: {self._value(field.value, 'x')} for k, x in {place}.items()}}"
        elif field.keyed_by:
            text = f"{{{_place('x', (field.keyed_by,))}: {self._value(field.value, 'x')} for x in {place}}}"
        elif field.repeated and _is_single(field.value):
            # An array of numbers has no truth of its own.
            text = f"singles({_place(source, field.path[:-1])}, {field.path[-1]!r})"
            return f"({text} if {place} else None)" if field.empty_as_null else text
        elif field.repeated:
            item = self._value(field.value, "x")
            # orjson writes lists, not the containers of protobuf.
            text = f"list({place})" if item == "x" else f"[{item} for x in {place}]"
        else:
            text = self._value(field.value, place)
            if test and field.presence:
                return f"({text} if {_present(field, source)} else None)"
        return f"({text} or None)" if field.empty_as_null else text

    def _value(self, value: Value, source: str) -> str:
        if value.form is Form.ENUM:
            # A number that has no name here is written as it is, or as null where the contract prefers that.
            other = "" if self._catalog.enum_mapping(value.enum).unspecified_as_null else f", {source}"
            return f"{self._enum(value.enum)}.get({source}{other})"
        if value.form is Form.MESSAGE:
            return f"{self._function(value.message)}({source})"
        if value.form is Form.TIMESTAMP:
            return f"timestamp{'_seconds' if value.seconds else ''}({source})"
        if value.form is Form.WRAPPER and value.inner is not None:
            return self._value(value.inner, f"{source}.value")
        if _is_single(value):
            return f"shortest({source})"
        writer = _WRITERS.get(value.form)
        unit = f", {value.unit}" if value.unit else ""
        return f"{writer}({source}{unit})" if writer else source

    def _enum(self, name: str) -> str:
        known = self._enums.get(name)
        if known is None:
            known = self._enums[name] = self._constant(enum_names(self._catalog, self._catalog.enum(name)))
        return known


def _field_of(part: Part) -> Field | None:
    """Return the field whose value a part writes; None for constants and unions."""
    field = part.field if isinstance(part, Alias) else part
    return field if isinstance(field, Field) else None


def _is_single(value: Value) -> bool:
    return value.form is Form.FLOAT and value.single


def _map_key(key: Value) -> str:
    if key.form is Form.STRING:
        return "k"
    return "('true' if k else 'false')" if key.form is Form.BOOL else "str(k)"


def _place(source: str, path: tuple[str, ...]) -> str:
    for name in path:
        source = f"getattr({source}, {name!r})" if iskeyword(name) else f"{source}.{name}"
    return source


def _present(field: Field, source: str) -> str:
    if field.presence:
        return f"{_place(source, field.path[:-1])}.HasField({field.path[-1]!r})"
    return _place(source, field.path)


def _which(union: Union) -> str:
    return f"{_place('m', union.path[:-1])}.WhichOneof({union.path[-1]!r})"
