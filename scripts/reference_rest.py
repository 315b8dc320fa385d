"""The page of the REST of the retired Letta V1 server 0.16.8: how each of its operations is answered here."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from letta_gateway.v1.operations import Answer, V1Operation, read_operations
from scripts.contracts import Contracts

HEAD = """\
Every operation of the REST of the retired Letta V1 server 0.16.8, and how it is answered here; `served` means as there.
What is not served answers 501 with the reason as `{"detail": "..."}`, and never 404. What else this server has is in
[RPCs](rpc.md). How much an operation is used: `core`, `common`, `rare`, `deprecated`, or `cloud-only`, which the hosted
product alone had.
"""
ANSWERS: dict[Answer, str] = {
    "served": "served",
    "differs": "served otherwise",
    "later": "501, later",
    "refused": "501",
}


def rest_page(contracts: Contracts) -> str:
    """Return the text of the page, after what says that it is made."""
    methods = {(verb, plain(path)): method.full_name for method in contracts.methods for verb, path in method.http}
    operations = read_operations()
    counts = ", ".join(f"{_count(operations, answer)} {words}" for answer, words in ANSWERS.items())
    lines = ["# REST\n", HEAD, f"{len(operations)} operations: {counts}.\n"]
    sections: dict[str, list[V1Operation]] = defaultdict(list)
    for each in operations:
        sections[_section(each.path)].append(each)
    for name in sorted(sections):
        lines += [f"## {name}\n", "| operation | tier | answer | by | what is otherwise, or why it is not served |"]
        lines += ["|---|---|---|---|---|", *_rows(sections[name], methods), ""]
    return "\n".join(lines)


def plain(path: str) -> str:
    """Return a path without the names of its variables, which each server chooses."""
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/")


def _rows(operations: list[V1Operation], methods: dict[tuple[str, str], str]) -> Iterator[str]:
    for each in operations:
        by = methods.get((each.method, plain(each.path)), "")
        name = f"`{'.'.join(by.split('.')[-2:])}`" if by else ""
        yield f"| `{each.method} {each.path}` | {each.tier} | {ANSWERS[each.answer]} | {name} | {each.why} |"


def _section(path: str) -> str:
    parts = path.strip("/").split("/")
    return f"/v1/{parts[1]}" if len(parts) > 1 else "/"


def _count(operations: tuple[V1Operation, ...], answer: Answer) -> int:
    return sum(each.answer == answer for each in operations)
