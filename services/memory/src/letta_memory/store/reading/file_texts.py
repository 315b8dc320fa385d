"""The texts of files, read in parts, so that nobody holds a whole one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from letta_memory.domain.reading.file_views import LineRange, view
from letta_postgres.db import Database

_SMALLEST = 16_384
"""Characters that each part of a text has at least, the last one excepted."""
_READ = 16
"""Parts that a search reads at once."""
_VIEWS = 2_000_000
"""Characters of all views of an agent together: they travel in one message."""
# From the part on in which the line begins; it may also begin with the part after that.
_FROM_LINE = (
    "select w.place, w.line - t.first_line, t.text "
    "from unnest(%(files)s::text[], %(lines)s::int4[]) with ordinality w(file_id, line, place) "
    "cross join lateral (select p.number from memory.file_texts p where p.organization_id = %(org)s "
    "and p.file_id = w.file_id and (p.first_line < w.line or p.number = 0) order by p.number desc limit 1) s "
    "join memory.file_texts t on t.organization_id = %(org)s and t.file_id = w.file_id "
    "and t.number between s.number and s.number + %(more)s order by w.place, t.number"
)
_COUNTS = (
    "select w.file_id, coalesce((select p.first_line + length(p.text) - length(replace(p.text, chr(10), '')) "
    "+ (right(p.text, 1) <> chr(10))::integer from memory.file_texts p where p.organization_id = %(org)s "
    "and p.file_id = w.file_id order by p.number desc limit 1), 0) from unnest(%(files)s::text[]) w(file_id)"
)
_PARTS = (
    "select convert_to(p.text, 'UTF8') from memory.file_texts p where p.organization_id = %(org)s "
    "and p.file_id = %(file)s and p.number >= %(first)s order by p.number limit %(most)s"
)


async def count_lines(db: Database, org: str, file_ids: Sequence[str]) -> dict[str, int]:
    """Return how many lines files have."""
    return dict(await db.hot(_COUNTS, {"org": org, "files": list(file_ids)}))


async def views_of(db: Database, org: str, shown: Mapping[str, LineRange], limit: int) -> dict[str, str]:
    """Return what is shown of files, by their ids."""
    if not shown:
        return {}
    limit = min(limit, _VIEWS // len(shown))
    texts = await texts_from(db, org, [(file_id, lines.start) for file_id, lines in shown.items()], limit)
    counts = await count_lines(db, org, list(shown))
    return {
        file_id: view(text, counts[file_id], lines, limit)
        for text, (file_id, lines) in zip(texts, shown.items(), strict=True)
    }


async def texts_from(db: Database, org: str, places: Sequence[tuple[str, int]], most: int) -> list[str]:
    """Return the text of each of these files from a line on: so many characters at least, where there are as many."""
    values = {
        "org": org,
        "files": [file_id for file_id, _ in places],
        "lines": [line for _, line in places],
        "more": 1 + most // _SMALLEST,
    }
    found = [""] * len(places)
    for place, group in groupby(await db.hot(_FROM_LINE, values), key=itemgetter(0)):
        parts = list(group)
        found[place - 1] = _after("".join(part[2] for part in parts), parts[0][1])
    return found


async def pieces_of(db: Database, org: str, file_id: str) -> AsyncIterator[bytes]:
    """Yield the text of a file in pieces that end with a line, the last one excepted."""
    rest, first = b"", 0
    while rows := await db.hot(_PARTS, {"org": org, "file": file_id, "first": first, "most": _READ}):
        first += len(rows)
        read = b"".join((rest, *(row[0] for row in rows)))
        end = read.rfind(b"\n") + 1
        rest = read[end:]
        if end:
            yield read[:end]
    if rest:
        yield rest


def _after(text: str, lines: int) -> str:
    """Return what follows so many lines of a text."""
    at = 0
    for _ in range(lines):
        at = text.find("\n", at) + 1
        if not at:
            return ""
    return text[at:]
