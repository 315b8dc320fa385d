"""The folders and files of an agent, as its prompt shows them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from letta.memory.v1.agent_file_pb2 import Directories, Directory, DirectoryFile
from letta_common.values.times import stamp_of
from letta_memory.domain.reading.agent_files import attachment_id
from letta_memory.domain.reading.file_views import LineRange
from letta_memory.store.reading.file_texts import views_of
from letta_postgres.db import Database
from letta_postgres.statements import call

_LISTED = 100  # closed files of a folder; thousands of names would push out of a context what matters
_AGENT = (
    "select a.directories_version, a.max_files_open, a.view_char_limit from memory.agents a "
    "where a.organization_id = %(org)s and a.id = %(agent)s"
)
_FOLDERS = (
    "select d.id, d.name, d.description, d.instructions from memory.folder_agents l "
    "join memory.folders d on d.organization_id = l.organization_id and d.id = l.folder_id "
    "where l.organization_id = %(org)s and l.agent_id = %(agent)s and d.deleted_at is null order by d.name, d.id"
)
_FILES = (
    "select f.file_id, f.name, f.folder_id, f.is_open, f.start_line, f.end_line, f.last_accessed_at, f.many "
    "from (select x.*, count(*) over (partition by x.folder_id) as many, "
    "row_number() over (partition by x.folder_id, x.is_open order by x.created_at, x.file_id) as place "
    f"from {call('memory.files_of', 'org', 'agent')} x) f where f.is_open or f.place <= %(listed)s "
    "order by f.created_at, f.file_id"
)


async def directories_of(db: Database, org: str, agent_id: str) -> Directories:
    """Return an agent's directories; none when it has no folders."""
    values = {"org": org, "agent": agent_id, "listed": _LISTED}
    # The version first: what is read after it may be newer, and is then read again, but never older.
    rows = await db.hot(_AGENT, values)
    folders = await db.hot(_FOLDERS, values)
    if not rows or not folders:
        return Directories()
    [(version, most, limit)] = rows
    files = await db.hot(_FILES, values)
    shown = {file[0]: LineRange(file[4], file[5]) for file in files if file[3]}
    views = await views_of(db, org, shown, limit)
    by_folder: dict[str, list[Any]] = defaultdict(list)
    for file in files:
        by_folder[file[2]].append(file)
    return Directories(
        version=version,
        max_files_open=most,
        view_char_limit=limit,
        directories=[
            Directory(
                name=name,
                description=description,
                instructions=instructions,
                files=[_file(row, views) for row in by_folder[folder_id]],
                unlisted_file_count=by_folder[folder_id][0][7] - len(by_folder[folder_id])
                if by_folder[folder_id]
                else 0,
            )
            for folder_id, name, description, instructions in folders
        ],
    )


def _file(row: Any, views: dict[str, str]) -> DirectoryFile:
    file_id, name, folder_id, _, _, _, accessed, _ = row
    return DirectoryFile(
        id=attachment_id(file_id),
        file_id=file_id,
        name=name,
        folder_id=folder_id,
        view=views.get(file_id),
        last_accessed_at=stamp_of(accessed),
    )
