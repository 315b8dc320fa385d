"""DOCX and DOCM: headings, paragraphs, lists and tables of the body. Macros are never looked at."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from letta_documents.inside.faults import Corrupt, parsing, require_installed
from letta_documents.inside.parsers import docx
from letta_documents.inside.writing import TextWriter

_MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
# The same part of files that may hold macros, and of templates.
_ALSO = (
    "application/vnd.ms-word.document.macroEnabled.main+xml",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    "application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
)
_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_DEEPEST = 50


def write_document(writer: TextWriter, data: bytes) -> None:
    """Write a DOCX file. Raises Fault."""
    require_installed(docx, "DOCX files")
    for kind in _ALSO:
        docx.opc.part.PartFactory.part_type_for[kind] = docx.parts.document.DocumentPart
    with parsing("DOCX file"):
        part = docx.package.Package.open(io.BytesIO(data)).main_document_part
        if part.content_type not in (_MAIN, *_ALSO):
            raise Corrupt(f"its main part is of type {part.content_type}")
        document = part.document
        writer.title = document.core_properties.title or ""
        styles: dict[str | None, str] = {}
        for block in _blocks(document.element.body, document, 0):
            if isinstance(block, docx.table.Table):
                writer.table([_cells(row) for row in block.rows])
            else:
                _write_paragraph(writer, block, styles)


def _blocks(element: Any, parent: Any, depth: int) -> Iterator[Any]:
    """Yield paragraphs and tables, those in content controls too."""
    for child in element.iterchildren():
        if child.tag == f"{_W}p":
            yield docx.text.paragraph.Paragraph(child, parent)
        elif child.tag == f"{_W}tbl":
            yield docx.table.Table(child, parent)
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent") and depth < _DEEPEST:
            yield from _blocks(child, parent, depth + 1)


def _write_paragraph(writer: TextWriter, paragraph: Any, styles: dict[str | None, str]) -> None:
    text = paragraph.text
    identifier = paragraph._p.style
    if identifier not in styles:
        styles[identifier] = (paragraph.style.name if paragraph.style else "") or ""
    style = styles[identifier]
    level = _HEADING.match(style)
    if level or style == "Title":
        writer.heading(int(level[1]) if level else 1, text)
    elif style.startswith("List"):
        writer.item("1." if "Number" in style else "-", text)
    else:
        writer.paragraph(text)


def _cells(row: Any) -> list[str]:
    """Return the texts of the cells of a row, each cell once."""
    seen: list[Any] = []
    for cell in row.cells:
        if not seen or seen[-1]._tc is not cell._tc:
            seen.append(cell)
    return [cell.text for cell in seen]
