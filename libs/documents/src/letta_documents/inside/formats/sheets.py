"""XLSX and XLSM: the values of each sheet as a table. Formulas are not computed, macros never looked at."""

from __future__ import annotations

import datetime
import io
from typing import Any

from letta_documents.inside.faults import parsing, require_installed
from letta_documents.inside.parsers import openpyxl
from letta_documents.inside.writing import Rows, TextWriter


def write_sheets(writer: TextWriter, data: bytes) -> None:
    """Write an XLSX file. Raises Fault."""
    require_installed(openpyxl, "XLSX files")
    with parsing("XLSX file"):
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        writer.title = str(book.properties.title or "")
        for number, sheet in enumerate(book.worksheets, 1):
            writer.turn(number)
            writer.heading(2, f"Sheet: {sheet.title}")
            sheet.reset_dimensions()  # what it says of its size may be anything
            rows = Rows(writer)
            for row in sheet.iter_rows(values_only=True):
                rows.row([_text(value) for value in row])
            rows.end()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
