"""PDF: the text of each page."""

from __future__ import annotations

import io
from typing import Any

from letta_documents.inside.faults import Corrupt, Protected, TooLarge, parsing, require_installed
from letta_documents.inside.parsers import pypdf
from letta_documents.inside.writing import TextWriter, clean

_MOST_PAGES = 20_000


def write_pdf(writer: TextWriter, data: bytes) -> None:
    """Write a PDF. Raises Fault."""
    require_installed(pypdf, "PDF files")
    with parsing("PDF file"):
        try:
            _write_pages(writer, _opened(data))
        except pypdf.errors.LimitReachedError as error:
            raise TooLarge(f"it unpacks to too much: {error}") from error


def _opened(data: bytes) -> Any:
    reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Protected("it needs a password")
    return reader


def _write_pages(writer: TextWriter, reader: Any) -> None:
    count = len(reader.pages)
    if not count:
        raise Corrupt("it has no pages")
    if count > _MOST_PAGES:
        raise TooLarge(f"it has {count} pages, the limit is {_MOST_PAGES}")
    writer.title = str((reader.metadata.title if reader.metadata else "") or "")
    for number, page in enumerate(reader.pages, 1):
        text = clean(page.extract_text()).strip()
        writer.turn(number)
        writer.write(f"[page {number}]\n{text}\n\n" if text else f"[page {number}]\n\n")
