"""Reads one file: what it is, and its text."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

from letta_documents.inside import kinds
from letta_documents.inside.decoding import decode
from letta_documents.inside.faults import Fault
from letta_documents.inside.formats import (
    html_pages,
    json_texts,
    mails,
    pdfs,
    plain,
    sheets,
    slides,
    tables,
    words,
)
from letta_documents.inside.writing import TextWriter

_OF_BYTES: dict[str, Callable[[TextWriter, bytes], None]] = {
    kinds.PDF: pdfs.write_pdf,
    kinds.DOCX: words.write_document,
    kinds.PPTX: slides.write_slides,
    kinds.XLSX: sheets.write_sheets,
    kinds.MAIL: mails.write_mail,
}
_OF_TEXT: dict[str, Callable[[TextWriter, str], None]] = {
    kinds.HTML: html_pages.write_page,
    kinds.MARKDOWN: plain.write_markdown,
    kinds.SOURCE: plain.write_source,
    kinds.CSV: tables.write_table,
    kinds.TSV: lambda writer, text: tables.write_table(writer, text, "\t"),
    kinds.JSON: json_texts.write_json,
    kinds.JSON_LINES: json_texts.write_lines,
    kinds.PLAIN: plain.write_plain,
}


def read(attachment: bytes, media_type: str, name: str, most_characters: int) -> dict[str, Any]:
    """Return the document of a file as values of JSON, or the fault of it."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        return _read(attachment, media_type, name, most_characters)
    except Fault as fault:
        return {"fault": type(fault).__name__, "message": str(fault)}


def _read(data: bytes, media_type: str, name: str, most_characters: int) -> dict[str, Any]:
    writer = TextWriter(most_characters)
    kind = kinds.kind_of_bytes(data)
    if not kind:
        text = decode(data, _encoding(media_type))
        kind = kinds.kind_of_text(text, media_type=media_type, name=name)
        if kind in _OF_TEXT:
            _OF_TEXT[kind](writer, text)
            return writer.result(kind)
    _OF_BYTES[kind](writer, data)
    return writer.result(kind)


def _encoding(media_type: str) -> str:
    """Return what a media type says of the encoding, or nothing."""
    for parameter in media_type.split(";")[1:]:
        key, _, value = parameter.strip().partition("=")
        if key.lower() == "charset":
            return value.strip("\"'")
    return ""
