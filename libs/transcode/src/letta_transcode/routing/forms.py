"""Reads multipart forms."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from letta_transcode.http.errors import unprocessable
from letta_transcode.routing.bindings import File

MULTIPART = "multipart/form-data"


def parse_form(content_type: str, body: bytes) -> tuple[dict[str, list[str]], dict[str, File]]:
    """Return the fields and the files of a form. Raises HttpError 422."""
    fields: dict[str, list[str]] = {}
    files: dict[str, File] = {}

    def on_field(field: Any) -> None:
        fields.setdefault(_text(field.field_name), []).append(_text(field.value))

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        # Browsers of old sent the whole path; only the name may be used.
        name = PurePosixPath(_text(file.file_name).replace("\\", "/")).name
        kind = _text(getattr(file, "content_type", None))
        files[_text(file.field_name)] = File(name, kind, file.file_object.read())
        file.close()

    _, options = parse_options_header(content_type)
    # The body is in memory already and within its limit, so nothing is written to files on the way.
    config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1, "MAX_BODY_SIZE": float("inf")}
    try:
        parser = FormParser(MULTIPART, on_field, on_file, boundary=options.get(b"boundary", b""), config=config)
        parser.write(body)
        parser.finalize()
        parser.close()
    except (FormParserError, ValueError) as error:
        problem = {"type": "form_invalid", "loc": ("body",), "msg": f"Form cannot be read: {error}", "input": None}
        raise unprocessable([problem]) from error
    return fields, files


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
