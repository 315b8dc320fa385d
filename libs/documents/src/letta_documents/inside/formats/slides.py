"""PPTX and PPTM: each slide with its title, texts, tables and notes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from letta_documents.inside.faults import parsing, require_installed
from letta_documents.inside.parsers import pptx
from letta_documents.inside.writing import TextWriter, flat

_DEEPEST = 20


def write_slides(writer: TextWriter, data: bytes) -> None:
    """Write a PPTX file. Raises Fault."""
    require_installed(pptx, "PPTX files")
    with parsing("PPTX file"):
        presentation = pptx.Presentation(io.BytesIO(data))
        writer.title = presentation.core_properties.title or ""
        for number, slide in enumerate(presentation.slides, 1):
            writer.turn(number)
            _write_slide(writer, number, slide)


def _write_slide(writer: TextWriter, number: int, slide: Any) -> None:
    title = slide.shapes.title
    named = flat(title.text_frame.text) if title is not None else ""
    writer.heading(2, f"Slide {number}: {named}" if named else f"Slide {number}")
    for shape in _shapes(slide.shapes, 0):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if getattr(shape, "has_table", False):
            writer.table([[cell.text for cell in row.cells] for row in shape.table.rows])
        elif shape.has_text_frame:
            writer.paragraph(shape.text_frame.text)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text
        writer.paragraph(f"Notes: {notes}" if notes.strip() else "")


def _shapes(shapes: Iterable[Any], depth: int) -> Iterator[Any]:
    """Yield shapes, those of groups too."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            if depth < _DEEPEST:
                yield from _shapes(shape.shapes, depth + 1)
        else:
            yield shape
