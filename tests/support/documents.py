"""Makes files of each format, by the libraries that know it or by hand."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping

import docx
import openpyxl
import pptx


def pdf_of(objects: Iterable[str | bytes], *, root: int = 1) -> bytes:
    """Return a PDF of these objects, the first of which is number 1."""
    out = io.BytesIO()
    out.write(b"%PDF-1.7\n")
    places = []
    for number, each in enumerate(objects, 1):
        places.append(out.tell())
        body = each if isinstance(each, bytes) else each.encode()
        out.write(b"%d 0 obj\n" % number + body + b"\nendobj\n")
    begin = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    out.write(b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(places) + 1, root, begin))
    return out.getvalue()


def stream_of(data: bytes, entries: str = "") -> bytes:
    """Return a stream of a PDF."""
    return b"<< /Length %d %s >>\nstream\n" % (len(data), entries.encode()) + data + b"\nendstream"


def pdf(pages: list[str], *, count: int | None = None) -> bytes:
    """Return a PDF with a line of text on each page, which says that it has `count` pages."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects: list[str | bytes] = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages) if count is None else count} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(stream_of(f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET".encode()))
    return pdf_of(objects)


def saved(file: object) -> bytes:
    """Return the bytes that a file of a library is saved as."""
    out = io.BytesIO()
    file.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


def word() -> bytes:
    """Return a DOCX with two sections, a list and a table."""
    file = docx.Document()
    file.core_properties.title = "Harbour report"
    file.add_heading("Harbour", 1)
    file.add_paragraph("Ships come at noon.")
    file.add_paragraph("rope", style="List Bullet")
    file.add_paragraph("tar", style="List Bullet")
    file.add_heading("Tolls", 2)
    table = file.add_table(2, 2)
    for place, text in (((0, 0), "ship"), ((0, 1), "toll"), ((1, 0), "Ann|e"), ((1, 1), "12")):
        table.cell(*place).text = text
    return saved(file)


def slides() -> bytes:
    """Return a PPTX with two slides: title and text with notes, and a table."""
    file = pptx.Presentation()
    slide = file.slides.add_slide(file.slide_layouts[1])
    slide.shapes.title.text = "Tides"
    slide.placeholders[1].text = "High at six."
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    slide = file.slides.add_slide(file.slide_layouts[6])
    table = slide.shapes.add_table(2, 2, 0, 0, 900000, 900000).table
    for row, cells in enumerate((("day", "hour"), ("Monday", "6"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    return saved(file)


def book(rows: int = 3) -> bytes:
    """Return an XLSX with two sheets, the first with a header and rows."""
    file = openpyxl.Workbook()
    file.active.title = "Costs"
    file.active.append(["item", "cost"])
    for number in range(rows):
        file.active.append([f"item {number}", number * 1.5])
    file.create_sheet("Notes").append(["only one"])
    return saved(file)


def changed(archive: bytes, changes: Mapping[str, Callable[[bytes], bytes]], added: Mapping[str, bytes] = {}) -> bytes:
    """Return a ZIP file with some entries changed and some added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name, lambda data: data)(old.read(name)))
        for name, data in added.items():
            new.writestr(name, data)
    return out.getvalue()


def swollen(archive: bytes, name: str, head: bytes, unit: bytes, times: int, tail: bytes) -> bytes:
    """Return a ZIP file in which one entry is a unit many times over, put together without ever being whole."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for each in old.namelist():
            if each != name:
                new.writestr(each, old.read(each))
        with new.open(name, "w", force_zip64=True) as entry:
            entry.write(head)
            block = unit * 4096
            for _ in range(times // 4096):
                entry.write(block)
            entry.write(tail)
    return out.getvalue()


def deflated(unit: bytes, times: int) -> bytes:
    """Return a unit many times over, deflated without ever being whole."""
    packer = zlib.compressobj(9)
    block = unit * 4096
    return b"".join(packer.compress(block) for _ in range(times // 4096)) + packer.flush()
