"""What the command prints: results on stdout, everything else on stderr. Nothing printed is read as markup."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from google.protobuf.message import Message

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_GAP = 2
_SMALLEST_COLUMN = 12
# What steers a terminal (escape sequences too) or turns the direction of writing, but for ends of lines and tabs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Return text of others as it may stand on a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def styled(text: str, style: str = "") -> Text:
    """Return text of others in a style; brackets in it are brackets."""
    return Text(plain(text), style=style)


def say(text: str, style: str = "", *, end: str = "\n") -> None:
    """Print text of others as a result, never broken by us: where it wraps is the terminal's affair."""
    out.print(styled(text, style), end=end, soft_wrap=True)


def note(text: str, style: str = "dim") -> None:
    """Print a remark on stderr."""
    err.print(styled(text, style), soft_wrap=True)


def failed(text: str) -> None:
    """Say what went wrong."""
    err.print(Text.assemble(("error:", "red"), " ", plain(text)), soft_wrap=True)


def fail(text: str) -> NoReturn:
    """Say what went wrong and end with status 1."""
    failed(text)
    sys.exit(1)


def secret(label: str, value: str) -> None:
    """Print a secret on one line of stdout, whatever the width, after a line on stderr that says what it is."""
    note(label, style="bold")
    # Before the secret, so that the label stands above it where both go to one terminal.
    sys.stderr.flush()
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


def panel(title: str, lines: Sequence[str]) -> None:
    """Print lines in a box."""
    from rich.panel import Panel  # noqa: PLC0415 few commands draw one

    text = "\n".join(plain(line) for line in lines if line)
    err.print(Panel(Text(text), title=Text(title), expand=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under column heads. Ids, the first column, are never cut: on a narrow terminal rows become lists."""
    cells = [[plain(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(cell_len(line[number]) for line in [list(columns), *cells]) for number in range(len(columns))]
    room = out.width if out.is_terminal else sum(widths) + _GAP * len(widths)
    least = widths[0] + sum(min(width, _SMALLEST_COLUMN) + _GAP for width in widths[1:])
    if least > room:
        _lists(columns, cells)
        return
    for width, line in [("bold", list(columns)), *(("", row) for row in cells)]:
        out.print(Text(_joined(line, widths, room), style=width), soft_wrap=True)


def _joined(line: Sequence[str], widths: Sequence[int], room: int) -> str:
    left, parts = room, []
    for number, cell in enumerate(line):
        behind = sum(min(width, _SMALLEST_COLUMN) + _GAP for width in widths[number + 1 :])
        width = min(widths[number], max(left - behind, 1))
        shown = cell if cell_len(cell) <= width else _cut(cell, width)
        parts.append(shown + " " * (width - cell_len(shown)))
        left -= width + _GAP
    return (" " * _GAP).join(parts).rstrip()


def _cut(text: str, width: int) -> str:
    short = Text(text)
    short.truncate(width, overflow="ellipsis")
    return short.plain


def _lists(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        say(row[0], "bold")
        for name, cell in zip(columns[1:], row[1:], strict=True):
            say(f"  {name}: {cell}")


def as_json(value: Message | Sequence[Message] | dict[str, Any]) -> None:
    """Print messages as JSON, one document."""
    if isinstance(value, dict):
        document: Any = value
    elif isinstance(value, Sequence):
        document = [_document(one) for one in value]
    else:
        document = _document(value)
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _document(message: Message) -> Any:
    from google.protobuf import json_format  # noqa: PLC0415 only where JSON is asked for

    return json_format.MessageToDict(message, preserving_proto_field_name=True)
