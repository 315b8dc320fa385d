"""Reads multipart forms as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from python_multipart.decoders import Base64Decoder, QuotedPrintableDecoder
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from letta_transcode.http.errors import HttpError, detail, unprocessable
from letta_transcode.routing.bindings import File

MULTIPART = "multipart/form-data"
_PARTS = 1_000
"""Most parts of a form: each costs what its headers do, however short it is."""
_DECODERS: dict[bytes, Any] = {b"base64": Base64Decoder, b"quoted-printable": QuotedPrintableDecoder}


@dataclass(frozen=True, slots=True)
class FormPart:
    """The beginning of a part; `file` says whether it is a file."""

    key: str
    file: bool
    name: str
    content_type: str


Event = FormPart | bytes
"""What a form consists of: the beginnings of its parts, each before its bytes."""


class FormReader:
    """Splits the bytes of a form into its parts. It holds the headers of one part, and nothing of what is in parts."""

    def __init__(self, content_type: str) -> None:
        """Begin with the media type of the body. Raises HttpError 422 without a boundary."""
        self._events: list[Event] = []
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._parts = 0
        self._ended = False
        self._decoder: Any = None
        _, options = parse_options_header(content_type)
        if not options.get(b"boundary"):
            raise _broken("its boundary is missing")
        try:
            self._parser = MultipartParser(options[b"boundary"], self._callbacks())
        except FormParserError as error:
            raise _broken(error) from error

    def feed(self, data: bytes) -> list[Event]:
        """Read what came; return what is in it. Raises HttpError 422."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _broken(error) from error
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """Note that no more comes. Raises HttpError 422 when the form is not complete."""
        if not self._ended:
            raise _broken("it ends in the middle")

    def write(self, data: bytes) -> int:
        """Take decoded bytes of a part; decoders call this."""
        self._events.append(data)
        return len(data)

    def _callbacks(self) -> Any:
        def on_header_field(data: bytes, start: int, end: int) -> None:
            self._name += data[start:end]

        def on_header_value(data: bytes, start: int, end: int) -> None:
            self._value += data[start:end]

        def on_part_data(data: bytes, start: int, end: int) -> None:
            (self._decoder or self).write(data[start:end])

        return {
            "on_part_begin": self._begin_part,
            "on_header_field": on_header_field,
            "on_header_value": on_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": on_part_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._headers.clear()
        self._parts += 1
        if self._parts > _PARTS:
            raise FormParserError(f"it has more than {_PARTS} parts")

    def _end_header(self) -> None:
        self._headers[self._name.lower()] = self._value.strip(b" \t")
        self._name = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if b"name" not in options:
            raise FormParserError("a part has no name")
        file_name = options.get(b"filename")
        # Browsers of old sent the whole path; only the name may be used.
        name = PurePosixPath(_text(file_name or b"").replace("\\", "/")).name
        kind = self._headers.get(b"content-type", b"").decode("latin-1")
        self._events.append(FormPart(_text(options[b"name"]), file_name is not None, name, kind))
        decoder = _DECODERS.get(self._headers.get(b"content-transfer-encoding", b"").lower())
        self._decoder = decoder(self) if decoder else None

    def _end_part(self) -> None:
        if self._decoder is not None:
            self._decoder.finalize()

    def finalize(self) -> None:
        """Do nothing: decoders say with this that a part ended."""

    def _end(self) -> None:
        self._ended = True


@dataclass(slots=True)
class Fields:
    """The fields of a form, in bytes that are bounded together. Raises HttpError 413 above them."""

    most_bytes: int
    _texts: dict[str, list[bytearray]] = field(default_factory=dict)
    _size: int = 0

    def begin(self, key: str) -> bytearray:
        """Begin a field; what is added to the answer is its text."""
        text = bytearray()
        self._texts.setdefault(key, []).append(text)
        return text

    def add(self, text: bytearray, data: bytes) -> None:
        """Add to the text of a field."""
        self._size += len(data)
        if self._size > self.most_bytes:
            raise detail(413, f"The fields of the form are larger than {self.most_bytes} bytes")
        text += data

    def texts(self) -> dict[str, list[str]]:
        """Return the texts of each field."""
        return {key: [_text(text) for text in texts] for key, texts in self._texts.items()}


def parse_form(content_type: str, body: bytes) -> tuple[dict[str, list[str]], dict[str, File]]:
    """Return the fields and the files of a form that came as a whole. Raises HttpError 422."""
    reader, fields, files = FormReader(content_type), Fields(len(body)), dict[str, tuple[FormPart, list[bytes]]]()
    text, pieces = bytearray(), list[bytes]()
    part: FormPart | None = None
    for event in reader.feed(body):
        if isinstance(event, FormPart):
            part = event
            if part.file:
                pieces = []
                files[part.key] = part, pieces
            else:
                text = fields.begin(part.key)
        elif part is not None and part.file:
            pieces.append(event)
        else:
            fields.add(text, event)
    reader.finish()
    made = {key: File(part.name, part.content_type, b"".join(content)) for key, (part, content) in files.items()}
    return fields.texts(), made


class StreamedForm:
    """A form with one file that is not held: its fields come first, then the bytes of the file as they come."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes], key: str, known: frozenset[str]) -> None:
        """Read the form in a body whose file has a key; `known` are the keys of fields that mean something."""
        self._events = _events(FormReader(content_type), body)
        self._key = key
        self._known = known

    async def head(self, most_bytes: int) -> tuple[dict[str, list[str]], FormPart | None]:
        """Read up to the bytes of the file. Return the fields, and the part of the file, if there is one.

        Raises:
            HttpError: 422 for what is no form, 413 when the fields are larger than so many bytes.
        """
        fields, text = Fields(most_bytes), None
        async for event in self._events:
            if not isinstance(event, FormPart):
                if text is not None:
                    fields.add(text, event)
            elif event.file and event.key == self._key:
                return fields.texts(), event
            else:
                text = None if event.file else fields.begin(event.key)
        return fields.texts(), None

    async def content(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of the file. Raises HttpError 422, also for what may not stand behind the file."""
        within = True
        async for event in self._events:
            if isinstance(event, FormPart):
                within = False
                self._require_unknown(event)
            elif within:
                yield event

    def _require_unknown(self, part: FormPart) -> None:
        if part.file and part.key == self._key:
            raise _misplaced(part.key, "Form holds more than one file of this name")
        if not part.file and part.key in self._known:
            raise _misplaced(part.key, "Fields of the form stand before its file")


async def _events(reader: FormReader, body: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    async for data in body:
        for event in reader.feed(data):
            yield event
    reader.finish()


def _broken(why: object) -> HttpError:
    return unprocessable([_problem((), f"Form cannot be read: {why}")])


def _misplaced(key: str, why: str) -> HttpError:
    return unprocessable([_problem((key,), why)])


def _problem(loc: tuple[str, ...], why: str) -> dict[str, Any]:
    return {"type": "form_invalid", "loc": ("body", *loc), "msg": why, "input": None}


def _text(value: bytes | bytearray) -> str:
    return value.decode(errors="replace")
