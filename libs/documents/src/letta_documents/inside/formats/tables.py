"""CSV and TSV as a table."""

from __future__ import annotations

import csv
import sys
from io import StringIO

from letta_documents.inside.faults import Corrupt
from letta_documents.inside.writing import Rows, TextWriter

_SAMPLE = 1 << 14
_DELIMITERS = ",;\t|"


def write_table(writer: TextWriter, text: str, delimiter: str = "") -> None:
    """Write delimited text; without a `delimiter` it is found out. Raises Corrupt."""
    csv.field_size_limit(sys.maxsize)
    text = text.lstrip("\ufeff").replace("\0", "")
    rows = Rows(writer)
    try:
        for row in csv.reader(StringIO(text, newline=""), delimiter=delimiter or _delimiter(text)):
            rows.row(row)
    except csv.Error as error:
        raise Corrupt(f"it is no table: {error}") from error
    rows.end()


def _delimiter(text: str) -> str:
    """Return the delimiter that occurs most in the first lines outside of quotes."""
    sample = "".join(text[:_SAMPLE].split('"')[::2])
    return max(_DELIMITERS, key=sample.count)
