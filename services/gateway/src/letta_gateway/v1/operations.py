"""The operations of the REST of the retired Letta V1 server 0.16.8, and how each is answered here."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

Answer = Literal["served", "differs", "later", "refused"]
"""As there; served, though otherwise; not served yet; not served, for a reason that stays."""
ABSENT: frozenset[Answer] = frozenset({"later", "refused"})


@dataclass(frozen=True, slots=True)
class V1Operation:
    """One operation."""

    method: str
    path: str
    tier: str
    """How much it is used: core, common, rare, deprecated, or cloud-only, which the hosted product alone had."""
    answer: Answer
    why: str
    """What is otherwise, or why it is not served. Empty: nothing is."""


def read_operations() -> tuple[V1Operation, ...]:
    """Return all operations, in the order of the list."""
    text = files("letta_gateway.v1").joinpath("operations.tsv").read_text()
    rows = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    return tuple(V1Operation(**row) for row in rows)  # type: ignore[arg-type]


def absent() -> dict[tuple[str, str], str]:
    """Return why operations are not served, by verb and path."""
    return {(each.method, each.path): each.why for each in read_operations() if each.answer in ABSENT}
