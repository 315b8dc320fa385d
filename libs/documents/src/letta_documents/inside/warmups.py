"""Imported by the fork server before it isolates itself: every parser, loaded once for all files."""

from __future__ import annotations

import io
from collections.abc import Iterator

from letta_documents.inside import parsers, readings


def _samples() -> Iterator[bytes]:
    """Yield a file for each parser that is installed."""
    yield b"From: a@example.com\nSubject: b\n\nc"
    yield b"<html><p>a</p></html>"
    if parsers.charset_normalizer is not None:
        yield "caf\u00e9 ".encode("latin-1") * 50
    if parsers.pypdf is not None:
        target = io.BytesIO()
        file = parsers.pypdf.PdfWriter()
        file.add_blank_page(100, 100)
        file.write(target)
        yield target.getvalue()
    for module, make in ((parsers.docx, "Document"), (parsers.pptx, "Presentation"), (parsers.openpyxl, "Workbook")):
        if module is not None:
            target = io.BytesIO()
            getattr(module, make)().save(target)
            yield target.getvalue()


def _warm() -> None:
    """Read a file of each format, so that parsers load what they load late."""
    for data in _samples():
        readings.read(data, "", "", 1000)


_warm()
