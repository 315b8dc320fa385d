"""What the command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def fail(text: str) -> NoReturn:
    """Say what went wrong and end with status 1."""
    err.print(f"[red]error:[/red] {text}", soft_wrap=True)
    sys.exit(1)


def panel(title: str, lines: Sequence[str]) -> None:
    """Print lines in a box."""
    err.print(Panel("\n".join(line for line in lines if line), title=title, expand=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under column heads."""
    drawn = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*row)
    out.print(drawn)


def as_json(value: Message | Sequence[Message] | dict[str, Any]) -> None:
    """Print messages as JSON, one document."""
    if isinstance(value, Message):
        plain: Any = _plain(value)
    elif isinstance(value, dict):
        plain = value
    else:
        plain = [_plain(one) for one in value]
    sys.stdout.write(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def _plain(message: Message) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
