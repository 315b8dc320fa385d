"""How the parts of an HTTP request - path, query, headers, body - fill the request message of one method."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from letta_transcode.http.errors import unprocessable
from letta_transcode.http.requests import parse_json
from letta_transcode.mapping.decoders import Decoder, masker, partial
from letta_transcode.mapping.plans import UNSET, Field, Form, MappingError, Value

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from letta_transcode.mapping.codecs import Codecs
    from letta_transcode.mapping.plans import MessagePlan
    from letta_transcode.mapping.values import Loc, Problems
    from letta_transcode.routing.templates import Template

HTTP_BODY = "google.api.HttpBody"
UPLOADED_FILE = "letta.jsonmap.v1.UploadedFile"
# How deep dotted query keys go, since a message may contain itself.
_NESTED = 4
_PIECE = 256 << 10  # bytes of a file in one message of a stream, far below what a message may have
_JSON = Value(Form.RAW)
# What pydantic takes for truth, since the clients were written against a server that used it.
_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE = frozenset({"false", "0", "no", "off", "f", "n"})


@dataclass(frozen=True, slots=True)
class File:
    """A file of a multipart form."""

    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class RequestParts:
    """The parts of a request that fill its message."""

    path: list[tuple[tuple[str, ...], str]]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any = UNSET
    form: Mapping[str, list[str]] | None = None
    files: Mapping[str, File] = field(default_factory=dict)
    content_type: str = ""
    first_item: int = 0
    """Number of the first item of a body that is a part of a list."""
    content: AsyncIterator[bytes] | None = None
    """What is in the one file of a form, where it goes on as it comes."""


@dataclass(frozen=True, slots=True)
class TextSource:
    """A field that is filled from text: of the path, a query parameter, a header or a form."""

    field: Field
    set: Decoder

    def fill(self, texts: list[str], message: Message, loc: Loc, problems: Problems) -> None:
        """Fill the field. The last text wins where only one is wanted."""
        value = self.field.value
        found: Any = [_from_text(value, text) for text in texts] if self.field.is_list else _from_text(value, texts[-1])
        self.set(found, message, loc, problems, 0)


class Binding:
    """Fills the request message of one method by one rule. Made once, used for each request."""

    def __init__(self, codecs: Codecs, message: str, template: Template, body: str) -> None:
        self._new = codecs.catalog.message_class(message)
        self._codecs = codecs
        self.message = message
        self.body = body
        plan = codecs.planner.plan(message)
        self.path = {path: self._text(path) for path in (each.path for each in template.variables)}
        self.headers = [self._text(each.path) for each in plan.fields() if each.header]
        self._mask = next((each for each in plan.fields() if each.mask), None)
        self._apart = self._set_apart(plan)
        self.query = self._query_fields(plan)
        self._defaults = [each for each in self.query.items() if each[1].field.default is not UNSET]
        self._required = [each for each in self.query.items() if each[1].field.required]
        self.body_plan: MessagePlan | None = None
        self.body_field: Field | None = None
        self.files: dict[str, Decoder] = {}
        self._documents: set[str] = set()
        self._file_fields: list[str] = []
        self._decode: Decoder | None = None
        self._paths: Callable[[Any, Any], list[str]] | None = None
        self._bind_body(plan)
        self._flattened = self._flattened_paths()
        shown: tuple[Field, ...] = self.body_plan.fields() if self.body_plan and self.body == "*" else ()
        self._renamed: dict[Loc, str] = {each.path: each.key for each in shown if each.key != each.path[-1]}

    @property
    def raw_body(self) -> bool:
        """Say whether the body is taken as bytes, not as JSON."""
        whole = self.body == "*" and self.message == HTTP_BODY
        return whole or (self.body_field is not None and self.body_field.value.message == HTTP_BODY)

    @property
    def takes_forms(self) -> bool:
        """Say whether the body may be a form."""
        return bool(self.files or self._documents)

    def read(self, parts: RequestParts) -> Message:
        """Return the request message. Raises HttpError 422, listing what is wrong."""
        message = self._new()
        problems: Problems = []
        try:
            self._read_body(parts, message, problems)
            self._read_query(parts, message, problems)
            # The path is read last, so that nothing else says which object is meant.
            for each in self.headers:
                text = parts.headers.get(each.field.header)
                if text is not None:
                    each.fill([text], message, ("header", each.field.header), problems)
            for path, text in parts.path:
                self.path[path].fill([text], message, ("path", ".".join(path)), problems)
        except UnicodeError:
            problems.append({"type": "string_unicode", "loc": (), "msg": "Input should be valid Unicode"})
        if problems:
            raise unprocessable([_moved(problem, parts.first_item) for problem in problems])
        return message

    async def pieces(self, message: Message, content: AsyncIterator[bytes] | None) -> AsyncGenerator[bytes, None]:
        """Yield the request again and again in bytes for the wire: at once without its file, then with pieces of it.

        The last one says how large the file is, which nobody knows before. Without a content it is the message's own.
        """
        file: Any = getattr(message, self._file_fields[0])
        own, size, waiting = file.content, 0, bytearray()
        file.ClearField("content")
        # Messages written one behind the other are one: all but the file is written once.
        rest = message.SerializeToString()
        yield rest
        async for data in content if content is not None else _once(own):
            size += len(data)
            waiting += data
            while len(waiting) >= _PIECE:
                yield rest + self._piece(content=bytes(waiting[:_PIECE]))
                del waiting[:_PIECE]
        yield rest + self._piece(content=bytes(waiting), size=size)

    def _piece(self, **values: bytes | int) -> bytes:
        piece: Any = self._new()
        file = getattr(piece, self._file_fields[0])
        for name, value in values.items():
            setattr(file, name, value)
        written: bytes = piece.SerializeToString()
        return written

    @property
    def form_fields(self) -> frozenset[str]:
        """The keys of a form's fields that mean something, besides those of its files."""
        plans = self.body_plan.fields() if self.body_plan else ()
        return frozenset(key for each in plans for key in (each.key, *each.aliases)) - self.files.keys()

    def locate(self, path: Loc) -> Loc:
        """Say where in the request the proto field of a path stands."""
        first = str(path[0]) if path else ""
        if any(path[: len(each)] == each for each in self.path):
            return ("path", ".".join(map(str, path)))
        if self.body and first in (self.body, ""):
            return ("body", *self._shown(path)[1:])
        header = next((each.field.header for each in self.headers if each.field.path == path), None)
        if header is not None:
            return ("header", header)
        if self.body == "*" and first not in self._apart:
            return ("body", *self._shown(path))
        return ("query", *self._shown(path))

    def _shown(self, path: Loc) -> Loc:
        """Return a path less the fields whose keys stand in the object around them, with the key of a renamed field."""
        if path in self._renamed:
            return (self._renamed[path],)
        return tuple(name for end, name in enumerate(path, 1) if path[:end] not in self._flattened)

    def _text(self, path: tuple[str, ...]) -> TextSource:
        found = self._codecs.planner.field_at(self.message, path)
        if found.value.form in (Form.MESSAGE, Form.CANONICAL) or found.map_key is not None:
            raise MappingError(f"{self.message}.{'.'.join(path)} cannot be read from text")
        return TextSource(found, self._codecs.decoders.field(found))

    def _set_apart(self, plan: MessagePlan) -> frozenset[str]:
        """Return the fields, by proto name, that never stand in a body `*`."""
        names = {each.path[0] for each in plan.fields() if each.header or each.query or each.mask}
        return frozenset(names | {path[0] for path in self.path if len(path) == 1})

    def _query_fields(self, plan: MessagePlan) -> dict[str, TextSource]:
        taken = set(self.path) | {each.field.path for each in self.headers}
        found: dict[str, TextSource] = {}
        for each in _texts(self._codecs, plan, (), "", _NESTED):
            if each.path in taken or each.path[0] == self.body or each.mask or each.header:
                continue
            if self.body != "*" or each.query:
                found.setdefault(each.key, TextSource(each, self._codecs.decoders.field(each)))
        return found

    def _bind_body(self, plan: MessagePlan) -> None:
        decoders, planner, within = self._codecs.decoders, self._codecs.planner, ""
        if self.body == "*":
            rest = planner.without(plan, self._apart)
            within = self._resource(rest)
            self.body_plan = partial(rest, within) if self._mask else rest
            self._bind_files(rest)
            self._decode = (
                decoders.plan(self.body_plan) if self._apart or self._mask else decoders.message(self.message)
            )
        elif self.body:
            self.body_field = planner.field(self.message, self.body)
            value = self.body_field.value
            if self._mask and value.form is Form.MESSAGE and not self.body_field.repeated:
                self.body_plan = partial(planner.plan(value.message))
                self._decode = _inside(self.body, decoders.plan(self.body_plan))
            else:
                self._decode = decoders.field(self.body_field)
        if self._mask and self.body_plan:
            self._paths = masker(self.body_plan, within)

    def _resource(self, plan: MessagePlan) -> str:
        """Return the field of a body `*` that a mask is relative to: the one whose keys stand in the body itself."""
        inner = {each.path[0] for each in plan.fields() if len(each.path) > 1}
        return inner.pop() if self._mask and len(inner) == 1 else ""

    def _flattened_paths(self) -> frozenset[tuple[str, ...]]:
        name, within = self.message, tuple[str, ...]()
        if self.body_field is not None:
            if self.body_field.value.form is not Form.MESSAGE:
                return frozenset()
            name, within = self.body_field.value.message, (self.body,)
        plan = self._codecs.planner.plan(name)
        paths = [each.path for each in plan.fields()]
        return frozenset((*within, *path[:end]) for path in paths for end in range(1, len(path)))

    def _bind_files(self, plan: MessagePlan) -> None:
        for each in plan.fields():
            if each.value.message == UPLOADED_FILE and not each.repeated:
                self.files[each.key] = self._codecs.decoders.field(each)
                self._file_fields.append(each.path[0])
            elif each.json_file:
                self._documents.add(each.key)

    def _read_body(self, parts: RequestParts, message: Message, problems: Problems) -> None:
        if parts.form is not None:
            self._read_form(parts, message, problems)
        if self._decode is None or parts.form is not None:
            return
        if self.raw_body:
            target: Any = message if self.body == "*" else getattr(message, self.body)
            target.content_type, target.data = parts.content_type, parts.body
            return
        value = {} if parts.body is UNSET else parts.body
        self._decode(value, message, ("body",), problems, 0)
        if self._mask is not None and self._paths is not None:
            owner = message if self.body == "*" else getattr(message, self.body)
            mask = getattr(message, self._mask.path[0])
            mask.paths.extend(dict.fromkeys(self._paths(value, owner)))

    def _read_form(self, parts: RequestParts, message: Message, problems: Problems) -> None:
        """Fill the fields of a form as a body of the same keys would."""
        value: dict[str, Any] = {}
        plans = self.body_plan.fields() if self.body_plan else ()
        fields = {key: each for each in plans for key in (each.key, *each.aliases)}
        for key, texts in (parts.form or {}).items():
            known = fields.get(key)
            if known is not None:
                found = [_from_text(_JSON if known.map_key else known.value, text) for text in texts]
                value[key] = found if known.is_list else found[-1]
        value |= {key: parse_json(parts.files[key].content) for key in self._documents if key in parts.files}
        if self._decode is not None:
            # Empty objects stand in for files, or a required one would be missing; their content is not JSON.
            waiting: dict[str, Any] = {key: {} for key in self.files if key in parts.files}
            self._decode({**value, **waiting}, message, ("body",), problems, 0)
        for key in self.files:
            file = parts.files.get(key)
            if file is not None:
                target = getattr(message, fields[key].path[0])
                target.file_name, target.content_type, target.content = file.name, file.content_type, file.content

    def _read_query(self, parts: RequestParts, message: Message, problems: Problems) -> None:
        for key, texts in parts.query.items():
            known = self.query.get(key)
            if known is not None:
                known.fill(texts, message, ("query", key), problems)
        for key, each in self._defaults:
            if not _given(each.field, parts.query):
                each.set(each.field.default, message, ("query", key), problems, 0)
        for key, each in self._required:
            if not _given(each.field, parts.query):
                problems.append({"type": "missing", "loc": ("query", key), "msg": "Field required", "input": None})


def _moved(problem: dict[str, Any], by: int) -> dict[str, Any]:
    """Return a problem of a part of a list with the number that its item has in all of it."""
    where, *place = problem["loc"] or ("",)
    if not by or where != "body" or not place or not isinstance(place[0], int):
        return problem
    return {**problem, "loc": ("body", place[0] + by, *place[1:])}


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


def _given(field: Field, query: Mapping[str, list[str]]) -> bool:
    return any(key in query for key in (field.key, *field.aliases))


def _inside(name: str, decode: Decoder) -> Decoder:
    def decode_inside(value: Any, message: Any, loc: Loc, problems: Problems, depth: int) -> None:
        decode(value, getattr(message, name), loc, problems, depth)

    return decode_inside


def _texts(codecs: Codecs, plan: MessagePlan, path: tuple[str, ...], prefix: str, depth: int) -> list[Field]:
    """Return the fields of a message that text can fill, those of messages inside of it under dotted keys."""
    found: list[Field] = []
    if plan.transparent:
        return found
    for each in plan.fields():
        aliases = tuple(f"{prefix}{key}" for key in each.aliases)
        here = replace(each, path=(*path, *each.path), key=f"{prefix}{each.key}", aliases=aliases)
        if each.value.form is Form.MESSAGE:
            if depth and not each.repeated:
                inner = codecs.planner.plan(each.value.message)
                found += _texts(codecs, inner, here.path, f"{here.key}.", depth - 1)
        elif each.value.form is not Form.CANONICAL and each.map_key is None:
            found.append(here)
            found += [replace(here, key=key, required=False, default=UNSET) for key in aliases]
    return found


def _from_text(value: Value, text: str) -> Any:
    """Return the JSON value that a text stands for; a wrong one stays text, and its field refuses it."""
    if value.form is Form.WRAPPER and value.inner is not None:
        return _from_text(value.inner, text)
    if value.form is Form.BOOL:
        word = text.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else text
    if value.form is Form.RAW:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text
