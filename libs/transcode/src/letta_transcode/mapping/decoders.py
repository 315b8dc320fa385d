"""Compiles, for each message, the function that fills it from a JSON value and says what is wrong with the value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from letta_transcode.mapping import values
from letta_transcode.mapping.compilers import Compiler
from letta_transcode.mapping.plans import (
    UNSET,
    Choice,
    Field,
    Form,
    MappingError,
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
    from letta_transcode.mapping.values import Loc, Problems

Decoder = Callable[[Any, Any, "Loc", "Problems", int], None]
"""Takes a JSON value, the message to fill, where the value stands, the list of problems and the depth."""

_READERS = {Form.STRING: "to_string", Form.BOOL: "to_bool", Form.BYTES: "to_bytes", Form.RAW: "to_raw"}
_FILLERS = {
    Form.TIMESTAMP: "fill_timestamp",
    Form.DURATION: "fill_duration",
    Form.MOMENT_NUMBER: "fill_moment",
    Form.FIELD_MASK: "fill_field_mask",
    Form.CANONICAL: "fill_canonical",
}
_KINDS = {
    Form.STRING: "string",
    Form.BYTES: "string",
    Form.ENUM: "string",
    Form.TIMESTAMP: "string",
    Form.DURATION: "string",
    Form.MOMENT_NUMBER: "number",
    Form.DURATION_NUMBER: "number",
    Form.FIELD_MASK: "string",
    Form.INT: "number",
    Form.FLOAT: "number",
    Form.BOOL: "boolean",
    Form.RAW: "any",
}
# Every other well-known message is an object in JSON.
_CANONICAL_KINDS = {"google.protobuf.ListValue": "array", "google.protobuf.Value": "any"}
# By type and not by isinstance, as True is an int too.
_TESTS = {
    "string": "type(v) is str",
    "number": "type(v) is int or type(v) is float",
    "boolean": "type(v) is bool",
    "array": "type(v) is list",
    "object": "type(v) is dict",
}


class Decoders(Compiler[Decoder]):
    """Compiled decoders of a catalog's messages."""

    parameters = "v, m, loc, problems, depth"

    def __init__(self, catalog: Catalog, planner: Planner) -> None:
        scope = {name: getattr(values, name) for name in _HELPERS}
        super().__init__(catalog, planner, scope | {"fill_canonical": values.canonical_filler(catalog.pool)})

    def plan(self, plan: MessagePlan) -> Decoder:
        """Return the decoder of a message by another plan than its own."""
        return self._whole(lambda: self._apart(self._body(plan)))

    def field(self, field: Field) -> Decoder:
        """Return the decoder of one field: it takes the field's value and the message; `loc` is the value's."""
        return self._whole(lambda: self._apart(self._set(field, "loc")))

    def _body(self, plan: MessagePlan) -> list[str]:
        # An empty object is there too: without `SetInParent` its field would stay absent.
        lines = ["if depth > MAX_DEPTH:", "    return too_deep(loc, problems)", "m.SetInParent()"]
        if plan.transparent:
            only = plan.only
            if isinstance(only, Field):
                return [*lines, *self._set(only, "loc")]
            if only.choice is Choice.KIND:
                return [*lines, *self._by_kind(only, "loc")]
        lines += ["if type(v) is not dict:", "    return bad_object(v, loc, problems)", "o = v", "get = o.get"]
        for part in plan.parts:
            lines += self._part(part, strict=plan.transparent)
        return lines

    def _part(self, part: Part, *, strict: bool) -> list[str]:
        if isinstance(part, Field):
            return self._key(part) if part.read else []
        if not isinstance(part, Union):
            return []
        if part.choice is Choice.KIND:
            here = _below("loc", repr(part.key))
            return [f"v = get({part.key!r})", "if v is not None:", *_indent(self._by_kind(part, here))]
        if part.choice is Choice.TAG:
            return self._by_tag(part, strict=strict)
        if part.choice is Choice.KEYS:
            return self._by_keys(part, part.members, ("o", "loc"), strict=strict)
        lines = [line for member in part.members for line in self._key(member.field)]
        count = " + ".join(f"(get({member.field.key!r}) is not None)" for member in part.members)
        if len(part.members) > 1:
            keys = self._constant([member.field.key for member in part.members])
            lines += [f"if {count} > 1:", f"    only_one({keys}, loc, problems)"]
        return lines

    def _key(self, field: Field) -> list[str]:
        key, here = repr(field.key), _below("loc", repr(field.key))
        lines = [f"v = get({key})"]
        for alias in field.aliases:
            lines += ["if v is None:", f"    v = get({alias!r})"]
        if field.default is not UNSET:
            # Where null is a value of its own, only a missing key takes the default.
            test = f"v is None and {key} not in o" if field.presence else "v is None"
            lines += [f"if {test}:", f"    v = {self._constant(field.default)}"]
        lines += ["if v is not None:", *_indent(self._set(field, here))]
        if field.required:
            nullable = field.presence and not field.value.form.is_message
            lines += ["else:" if not nullable else f"elif {key} not in o:"]
            lines += [f"    absent({key}, o, {here}, problems)"]
        return lines

    def _set(self, field: Field, here: str) -> list[str]:
        """Write the lines that put the value `v` into the field."""
        place = _place("m", field.path)
        if field.map_key is not None:
            return self._set_map(field, place, here)
        if field.repeated:
            item = f"{here} + (i,)" if here == "loc" else f"{here[:-1]} i)"
            lines = [f"r = {place}", "for i, x in enumerate(v):"]
            if field.value.form.is_message:
                lines += _indent(self._fill(field.value, "x", "r.add()", item))
            else:
                lines += _indent([*self._read(field.value, "x", item), "if w is not None:", "    r.append(w)"])
            return ["if type(v) is list:", *_indent(lines), "else:", f"    bad_list(v, {here}, problems)"]
        if field.value.form.is_message:
            return self._fill(field.value, "v", place, here)
        # A field may be called `from` or `in`, which Python takes as an attribute by setattr alone.
        if iskeyword(field.path[-1]):
            assign = f"setattr({_place('m', field.path[:-1])}, {field.path[-1]!r}, w)"
        else:
            assign = f"{place} = w"
        return [*self._read(field.value, "v", here), "if w is not None:", f"    {assign}"]

    def _set_map(self, field: Field, place: str, here: str) -> list[str]:
        item = f"{here} + (k,)" if here == "loc" else f"{here[:-1]} k)"
        lines = [f"r = {place}", "for k, x in v.items():"]
        inner: list[str] = []
        if field.map_key is not None and field.map_key.form is not Form.STRING:
            reader = (
                "bool_key(k"
                if field.map_key.form is Form.BOOL
                else f"to_int(k, {field.map_key.low}, {field.map_key.high}"
            )
            inner += [f"k = {reader}, {item}, problems)", "if k is None:", "    continue"]
        if field.value.form.is_message:
            inner += self._fill(field.value, "x", "r[k]", item)
        else:
            inner += [*self._read(field.value, "x", item), "if w is not None:", "    r[k] = w"]
        return [
            "if type(v) is dict:",
            *_indent([*lines, *_indent(inner)]),
            "else:",
            f"    bad_object(v, {here}, problems)",
        ]

    def _read(self, value: Value, source: str, here: str) -> list[str]:
        """Write the lines that turn a JSON value into the scalar `w`, or None when it is wrong."""
        if value.form is Form.STRING:
            return [f"w = {source} if type({source}) is str else bad_string({source}, {here}, problems)"]
        if value.form is Form.INT:
            test = f"type({source}) is int and {value.low} <= {source} <= {value.high}"
            return [f"w = {source} if {test} else to_int({source}, {value.low}, {value.high}, {here}, problems)"]
        if value.form is Form.ENUM:
            return [f"w = {self._enum(value.enum)}({source}, {here}, problems)"]
        if value.form is Form.FLOAT:
            return [f"w = {'to_single' if value.single else 'to_float'}({source}, {here}, problems)"]
        return [f"w = {_READERS[value.form]}({source}, {here}, problems)"]

    def _fill(self, value: Value, source: str, target: str, here: str) -> list[str]:
        """Write the lines that fill a message from a JSON value."""
        if value.form is Form.MESSAGE:
            return [f"{self._function(value.message)}({source}, {target}, {here}, problems, depth + 1)"]
        if value.form is Form.WRAPPER and value.inner is not None:
            put = [*self._read(value.inner, source, here), "if w is not None:", "    t.value = w"]
            return [f"t = {target}", "t.SetInParent()", *put]
        if value.form is Form.DURATION_NUMBER:
            return [f"fill_length({source}, {target}, {value.unit}, {here}, problems)"]
        return [f"{_FILLERS[value.form]}({source}, {target}, {here}, problems)"]

    def _by_tag(self, union: Union, *, strict: bool) -> list[str]:
        lines = [f"t = get({union.key!r})"]
        if union.default_tag:
            lines += ["if t is None:", f"    t = {union.default_tag!r}"]
        word = "if"
        for member in union.members:
            test = f"t == {member.tags[0]!r}" if len(member.tags) == 1 else f"t in {member.tags!r}"
            here = "loc" if member.nested else _below("loc", repr(member.tags[0]))
            lines += [f"{word} {test}:", *_indent(self._fill(member.field.value, "o", _member(member), here))]
            word = "elif"
        tags = self._constant([tag for member in union.members for tag in member.tags])
        # A union beside other keys may be left out; one that is the whole message may not.
        lines += ["else:" if strict else "elif t is not None:"]
        return [*lines, f"    bad_tag(t, {union.key!r}, {tags}, loc, problems)"]

    def _by_kind(self, union: Union, here: str) -> list[str]:
        groups: dict[str, list[Member]] = {}
        for member in union.members:
            for kind in self._kinds(member.field):
                groups.setdefault(kind, []).append(member)
        lines: list[str] = []
        word = "if"
        for kind, members in groups.items():
            if kind == "any":
                continue
            lines += [f"{word} {_TESTS[kind]}:"]
            if kind == "object" and len(members) > 1:
                lines += _indent(self._by_keys(union, tuple(members), ("v", here), strict=True))
            else:
                lines += _indent(self._set(members[0].field, here))
            word = "elif"
        if "any" in groups:
            rest = self._set(groups["any"][0].field, here)
            return [*lines, "else:", *_indent(rest)] if lines else rest
        kinds = self._constant(list(groups))
        return [*lines, "else:", f"    bad_kind(v, {kinds}, {here}, problems)"]

    def _by_keys(self, union: Union, members: tuple[Member, ...], at: tuple[str, str], *, strict: bool) -> list[str]:
        source, here = at
        lines: list[str] = []
        word = "if"
        rest = [member for member in members if not member.keys]
        for member in members:
            if member.keys:
                lines += [f"{word} {' or '.join(f'{key!r} in {source}' for key in member.keys)}:"]
                lines += _indent(self._fill(member.field.value, source, _member(member), here))
                word = "elif"
        if rest:
            last = self._fill(rest[0].field.value, source, _member(rest[0]), here)
            return [*lines, "else:", *_indent(last)] if lines else last
        if strict:
            keys = self._constant(sorted({key for member in members for key in member.keys}))
            lines += ["else:", f"    bad_keys({keys}, {here}, problems)"]
        if not lines:
            raise MappingError(f"{'.'.join(union.path)} has no member to choose")
        return lines

    def _kinds(self, field: Field) -> list[str]:
        """Return the kinds of JSON value that a field may take."""
        if field.repeated:
            return ["object" if field.map_key is not None else "array"]
        value = field.value
        if value.form is Form.WRAPPER and value.inner is not None:
            return [_KINDS[value.inner.form]]
        if value.form is Form.CANONICAL:
            return [_CANONICAL_KINDS.get(value.message, "object")]
        return self._message_kinds(value.message) if value.form is Form.MESSAGE else [_KINDS[value.form]]

    def _message_kinds(self, name: str) -> list[str]:
        plan = self._planner.plan(name)
        if not plan.transparent:
            return ["object"]
        part = plan.only
        if isinstance(part, Field):
            return self._kinds(part)
        if part.choice is not Choice.KIND:
            return ["object"]
        return list(dict.fromkeys(kind for member in part.members for kind in self._kinds(member.field)))

    def _enum(self, name: str) -> str:
        known = self._enums.get(name)
        if known is None:
            names = enum_names(self._catalog, self._catalog.enum(name))
            numbers = {text: number for number, text in names.items() if isinstance(text, str)}
            known = self._enums[name] = self._constant(values.enum_reader(numbers))
        return known


_HELPERS = (
    *("to_string", "to_bool", "to_bytes", "to_raw", "to_int", "to_float", "to_single", "bool_key"),
    *("fill_timestamp", "fill_duration", "fill_length", "fill_moment", "fill_field_mask", "MAX_DEPTH"),
    *("bad_string", "bad_object", "bad_list", "bad_tag", "bad_kind", "bad_keys", "only_one", "too_deep", "absent"),
)


def partial(plan: MessagePlan, within: str = "") -> MessagePlan:
    """Return the plan for a masked update, of what stands within a field or of all.

    What is left out stays as it is, so nothing is required or defaulted; what no update changes is not read.
    """
    return replace(plan, parts=tuple(_free(part) if _is_within(part, within) else part for part in plan.parts))


def _free(part: Part) -> Part:
    if isinstance(part, Field):
        return replace(part, required=False, default=UNSET, read=not part.kept)
    if not isinstance(part, Union):
        return part
    if part.choice is not Choice.PLAIN:
        return replace(part, default_tag="")
    free = tuple(replace(m, field=replace(m.field, required=False, default=UNSET)) for m in part.members)
    return replace(part, members=free)


def masker(plan: MessagePlan, within: str = "") -> Callable[[Any, Any], list[str]]:
    """Return a function that names, as paths of proto names, what the keys of a JSON object set or clear.

    The paths begin within a field where one is given. Keys of fields that no update changes are not named: a client
    may send back a whole object.
    """
    start = 1 if within else 0
    changing = [field for field in plan.fields() if not field.kept and _is_within(field, within)]
    keys = {key: ".".join(field.path[start:]) for field in changing for key in (field.key, *field.aliases)}
    parts = [part for part in plan.parts if isinstance(part, Union) and _is_within(part, within)]
    unions = [replace(part, path=part.path[start:]) for part in parts if part.choice is not Choice.PLAIN]

    def paths(value: Any, message: Any) -> list[str]:
        if type(value) is not dict:
            return []
        found = [keys[key] for key in value if key in keys]
        for union in unions:
            found.extend(_chosen(union, value, getattr(message, within) if within else message))
        return found

    return paths


def _is_within(part: Part, name: str) -> bool:
    return not name or (isinstance(part, Field | Union) and part.path[0] == name)


def _chosen(union: Union, value: dict[str, Any], message: Any) -> list[str]:
    # The keys that choose a member are not its name; which one was chosen stands in the message.
    above = union.path[:-1]
    owner = message
    for name in above:
        owner = getattr(owner, name)
    chosen = owner.WhichOneof(union.path[-1])
    if chosen is not None:
        return [".".join((*above, chosen))]
    if union.choice is Choice.KEYS or union.key not in value:
        return []
    return [".".join((*above, member.field.path[-1])) for member in union.members]


def _indent(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _below(here: str, key: str) -> str:
    return f"{here} + ({key},)" if here == "loc" else f"{here[:-1]} {key},)"


def _member(member: Member) -> str:
    return _place("m", member.field.path)


def _place(source: str, path: tuple[str, ...]) -> str:
    for name in path:
        source = f"getattr({source}, {name!r})" if iskeyword(name) else f"{source}.{name}"
    return source
