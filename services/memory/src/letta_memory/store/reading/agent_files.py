"""What agents see of files, in PostgreSQL. Who changes it holds the agent's row first, and conversations after it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import sqlalchemy as sa

from letta.memory.v1 import agent_file_service_pb2 as pb
from letta.memory.v1.agent_file_pb2 import AgentFile, DirectoryFile, OpenedFile
from letta.memory.v1.folder_pb2 import Folder
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, FileNotFound, IdempotencyConflict, InvalidArgument
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of
from letta_memory.domain.contexts import Status, owner_refusal
from letta_memory.domain.reading.agent_files import FileLimits, FileText, attachment_id
from letta_memory.domain.reading.file_views import LineRange, chosen, lines_of
from letta_memory.store.files.folders import folder_of, folder_query, unknown_folder
from letta_memory.store.reading.file_texts import count_lines, pieces_of, texts_from, views_of
from letta_memory.store.tables import ListKeyset, folder_agents, folders, keyset, tombstones
from letta_postgres.connections import Connection
from letta_postgres.db import Database, retry
from letta_postgres.keyset import fetch_page

_Wanted = tuple[DirectoryFile, LineRange]
_LINE_CHARS = 16_384  # of a match with the lines around it, before each is cut
_NAMED = 20  # files that a refusal names
_LOCK = sa.text(
    "select a.max_files_open from memory.agents a where a.organization_id = :org and a.id = :agent for no key update"
)
_LIMITS = sa.text(
    "select a.max_files_open, a.view_char_limit from memory.agents a where a.organization_id = :org and a.id = :agent"
)
_LIMIT = sa.text(
    "update memory.agents set max_files_open = :most, view_char_limit = :chars "
    "where organization_id = :org and id = :agent "
    "and (max_files_open, view_char_limit) is distinct from (:most, :chars)"
)
_HOLD_FOLDER = sa.text(
    # Waits for who removes the folder, and lets nobody remove it until it is attached.
    "select from memory.folders where organization_id = :org and id = :folder and deleted_at is null for share"
)
_LINK = sa.text(
    "insert into memory.folder_agents (organization_id, agent_id, folder_id) values (:org, :agent, :folder) "
    "on conflict (organization_id, agent_id, folder_id) do nothing"
)
_UNLINK = sa.text(
    "delete from memory.folder_agents where organization_id = :org and agent_id = :agent and folder_id = :folder"
)
_FILL = sa.text(
    "insert into memory.agent_files (organization_id, agent_id, folder_id, file_id, is_open, last_accessed_at) "
    "select :org, :agent, f.folder_id, f.file_id, true, clock_timestamp() from memory.files_of(:org, :agent) f "
    "where f.folder_id = :folder order by f.created_at, f.file_id limit greatest(0, :most - "
    "(select count(*) from memory.files_of(:org, :agent) o where o.is_open)) "
    "on conflict (organization_id, agent_id, file_id) do nothing"
)
_OPEN = sa.text(
    "insert into memory.agent_files (organization_id, agent_id, folder_id, file_id, is_open, start_line, end_line, "
    "last_accessed_at) values (:org, :agent, :folder, :file, true, :start, :end, :now) "
    "on conflict (organization_id, agent_id, file_id) do update set is_open = true, start_line = excluded.start_line, "
    "end_line = excluded.end_line, last_accessed_at = excluded.last_accessed_at"
)
_CLOSE = sa.text(
    "update memory.agent_files set is_open = false, start_line = 0, end_line = null "
    "where organization_id = :org and agent_id = :agent and file_id = any(:files) and is_open"
)
_OPEN_ONES = sa.text(
    "select f.file_id, f.name from memory.files_of(:org, :agent) f where f.is_open "
    "order by f.last_accessed_at, f.file_id"
)
_BY_NAME = sa.text(
    "select f.name, f.file_id, f.folder_id from memory.files_of(:org, :agent) f where f.name = any(:names)"
)
_BY_ID = sa.text("select f.name, f.file_id, f.folder_id from memory.files_of(:org, :agent) f where f.file_id = :file")
_NAMES = sa.text("select f.name from memory.files_of(:org, :agent) f order by f.name limit :limit")
_RENEW = sa.text("select memory.renew_directories(:org, array[:agent])")
_FENCE = sa.text(
    "select t.fence from memory.conversations t "
    "where t.organization_id = :org and t.id = :conversation and t.agent_id = :agent for share"
)
_RAISE_FENCE = sa.text(
    "update memory.conversations set fence = :fence "
    "where organization_id = :org and id = :conversation and fence < :fence"
)
_KNOWN = sa.text(
    "select o.request_hash, o.answer from memory.file_openings o where o.organization_id = :org and o.key = :key"
)
_REMEMBER = sa.text(
    "insert into memory.file_openings (organization_id, key, request_hash, answer) values (:org, :key, :hash, :answer)"
)
_TEXTS = sa.text(
    "select f.file_id, f.name, f.text_bytes from memory.files_of(:org, :agent) f order by f.name, f.file_id"
)
_FOLDER_IDS = sa.text(
    "select d.id from memory.folder_agents l "
    "join memory.folders d on d.organization_id = l.organization_id and d.id = l.folder_id and d.deleted_at is null "
    "where l.organization_id = :org and l.agent_id = :agent order by d.id"
)
_PLACES = sa.text(
    "select p.id, d.name || '/' || f.name, p.file_place from memory.passages p "
    "join memory.files f on f.organization_id = p.organization_id and f.id = p.file_id and f.deleted_at is null "
    "join memory.folders d on d.organization_id = f.organization_id and d.id = f.folder_id "
    "where p.organization_id = :org and p.id = any(:passages)"
)
_FILE_COLUMNS = (
    "file_id",
    "name",
    "folder_id",
    "folder_name",
    "is_open",
    "start_line",
    "end_line",
    "last_accessed_at",
    "created_at",
)


class SqlAgentFileStore:
    """What agents see of files, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def attach_folder(self, actor: Actor, agent_id: str, folder_id: str, limits: FileLimits) -> None:
        """Give a folder to an agent, and open its files where there is room."""

        async def unit() -> None:
            async with self._db.begin() as tx:
                await _hold_folder(tx, actor, folder_id)
                values = await _held(tx, actor, agent_id)
                await _limit(tx, values, limits)
                linked = await tx.execute(_LINK, {**values, "folder": folder_id})
                if linked.rowcount == 1:
                    await tx.execute(_FILL, {**values, "folder": folder_id, "most": limits.max_open})

        await retry(unit)

    async def detach_folder(self, actor: Actor, agent_id: str, folder_id: str) -> None:
        """Take a folder from an agent."""

        async def unit() -> None:
            async with self._db.begin() as tx:
                await _hold_folder(tx, actor, folder_id)
                values = await _held(tx, actor, agent_id)
                await tx.execute(_UNLINK, {**values, "folder": folder_id})

        await retry(unit)

    async def set_limits(self, actor: Actor, agent_id: str, limits: FileLimits) -> None:
        """Set the limits of an agent, and close files that are open above them."""

        async def unit() -> None:
            async with self._db.begin() as tx:
                await _limit(tx, await _held(tx, actor, agent_id), limits)

        await retry(unit)

    async def list_folders(self, actor: Actor, agent_id: str, page: Page) -> list[Folder]:
        """Return a page of an agent's folders."""
        linked = sa.select(folder_agents.c.folder_id).where(
            folder_agents.c.organization_id == actor.organization_id, folder_agents.c.agent_id == agent_id
        )
        scope = sa.and_(folders.c.organization_id == actor.organization_id, folders.c.id.in_(linked))
        keys = keyset(folders, "created_at", actor.organization_id, scope)
        async with self._db.connect() as conn:
            await require_agent(conn, actor, agent_id)
            return [
                folder_of(actor, row) for row in await fetch_page(conn, folder_query(actor).where(scope), page, keys)
            ]

    async def list_files(self, actor: Actor, agent_id: str, page: Page, *, is_open: bool | None) -> list[AgentFile]:
        """Return a page of an agent's files."""
        org = actor.organization_id
        made = sa.func.memory.files_of(org, agent_id).table_valued(*_FILE_COLUMNS, name="f")
        found = sa.select(*(made.c[name] for name in _FILE_COLUMNS))
        if is_open is not None:
            found = found.where(sa.cast(made.c.is_open, sa.Boolean).is_(is_open))
        keys = ListKeyset(
            at=sa.cast(made.c.created_at, sa.DateTime(timezone=True)),
            id=made.c.file_id,
            scope=sa.true(),
            gone_at=tombstones.c.created_at,
            organization_id=org,
        )
        async with self._db.connect() as conn:
            limits = await require_agent(conn, actor, agent_id)
            rows = await fetch_page(conn, found, page, keys)
        shown = {row.file_id: LineRange(row.start_line, row.end_line) for row in rows if row.is_open}
        views = await views_of(self._db, org, shown, limits.view_chars)
        return [_agent_file(row, views.get(row.file_id)) for row in rows]

    async def open_file(self, actor: Actor, agent_id: str, file_id: str, now: datetime) -> list[str]:
        """Open a file from its start; return the names of those closed for it."""

        async def unit() -> list[str]:
            async with self._db.begin() as tx:
                values = await _held(tx, actor, agent_id)
                rows = await tx.execute(_BY_ID, {**values, "file": file_id})
                wanted = [(_file_of(row), LineRange()) for row in rows]
                if not wanted:
                    raise _unknown_file(file_id)
                return await _open(tx, values, wanted, now)

        return await retry(unit)

    async def open_files(self, actor: Actor, request: pb.OpenFilesRequest, now: datetime) -> pb.OpenFilesResponse:
        """Open files for a run, all or none, once for each key."""

        async def unit() -> pb.OpenFilesResponse:
            async with self._db.begin() as tx:
                values = await _held(tx, actor, request.agent_id)
                await _check_fence(tx, values, request)
                asked = {"org": actor.organization_id, "key": request.idempotency_key, "hash": _digest(request)}
                known = (await tx.execute(_KNOWN, asked)).one_or_none()
                if known is not None:
                    return _repeated(known, asked)
                answer = await self._opened(tx, values, request, now)
                await tx.execute(_REMEMBER, {**asked, "answer": answer.SerializeToString()})
                return answer

        return await retry(unit)

    async def _opened(
        self, tx: Connection, values: dict[str, Any], request: pb.OpenFilesRequest, now: datetime
    ) -> pb.OpenFilesResponse:
        found = await _named(tx, values, [file.file_name for file in request.files])
        if len(found) > values["most"]:
            text = f"at most {values['most']} files may be open at once; open fewer"
            raise InvalidArgument(text, field="files", max_files_open=str(values["most"]))
        counts = await count_lines(self._db, values["org"], [each.file_id for each in found.values()])
        wanted: dict[str, _Wanted] = {}
        for file in request.files:
            each = found[file.file_name]
            offset = file.offset if file.HasField("offset") else None
            length = file.length if file.HasField("length") else None
            # Of a file that is named twice, the last one counts.
            lines = chosen(file.file_name, counts[each.file_id], offset, length)
            wanted[each.file_id] = each, lines
        closed: list[str] = []
        if request.close_all_others:
            others = [row for row in await tx.execute(_OPEN_ONES, values) if row[0] not in wanted]
            closed = await _close(tx, values, others)
        evicted = await _open(tx, values, list(wanted.values()), now)
        return pb.OpenFilesResponse(
            opened=[
                OpenedFile(
                    file_name=each.name,
                    start_line=None if lines.whole else lines.start + 1,
                    end_line=lines.end,
                )
                for each, lines in wanted.values()
            ],
            closed_file_names=closed,
            evicted_file_names=evicted,
        )

    async def close_file(self, actor: Actor, agent_id: str, file_id: str) -> None:
        """Close a file."""

        async def unit() -> None:
            async with self._db.begin() as tx:
                values = await _held(tx, actor, agent_id)
                rows = (await tx.execute(_BY_ID, {**values, "file": file_id})).all()
                if not rows:
                    raise _unknown_file(file_id)
                await _close(tx, values, [(file_id, rows[0][0])])

        await retry(unit)

    async def close_files(self, actor: Actor, agent_id: str) -> list[str]:
        """Close all files; return their names."""

        async def unit() -> list[str]:
            async with self._db.begin() as tx:
                values = await _held(tx, actor, agent_id)
                return await _close(tx, values, (await tx.execute(_OPEN_ONES, values)).all())

        return await retry(unit)

    async def list_texts(self, actor: Actor, agent_id: str) -> list[FileText]:
        """Return the files whose text an agent can read, by name."""
        values = {"org": actor.organization_id, "agent": agent_id}
        async with self._db.connect() as conn:
            await require_agent(conn, actor, agent_id)
            return [FileText(*row) for row in await conn.execute(_TEXTS, values)]

    def stream_text(self, actor: Actor, file_id: str) -> AsyncIterator[bytes]:
        """Yield the text of a file in pieces that end with a line, the last one excepted."""
        return pieces_of(self._db, actor.organization_id, file_id)

    async def list_lines(self, actor: Actor, file_id: str, first: int, count: int) -> list[str]:
        """Return so many lines of a file from one on, counted from 0; fewer of them where they are long."""
        [text] = await texts_from(self._db, actor.organization_id, [(file_id, first)], _LINE_CHARS)
        return list(islice(lines_of(text), count))

    async def list_folder_ids(self, actor: Actor, agent_id: str) -> list[str]:
        """Return the folders of an agent."""
        values = {"org": actor.organization_id, "agent": agent_id}
        async with self._db.connect() as conn:
            await require_agent(conn, actor, agent_id)
            return [row[0] for row in await conn.execute(_FOLDER_IDS, values)]

    async def list_places(self, actor: Actor, passage_ids: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Return the file of each of these chunks and its place in it, by the chunk's id."""
        values = {"org": actor.organization_id, "passages": list(passage_ids)}
        async with self._db.connect() as conn:
            return {row[0]: (row[1], row[2]) for row in await conn.execute(_PLACES, values)}


async def require_agent(conn: Connection, actor: Actor, agent_id: str) -> FileLimits:
    """Return the limits of an agent. Raises AgentNotFound."""
    row = (await conn.execute(_LIMITS, {"org": actor.organization_id, "agent": agent_id})).one_or_none()
    if row is None:
        raise _unknown_agent(agent_id)
    return FileLimits(*row)


async def _held(tx: Connection, actor: Actor, agent_id: str) -> dict[str, Any]:
    """Hold an agent's row; return what its statements take. Raises AgentNotFound."""
    values = {"org": actor.organization_id, "agent": agent_id}
    row = (await tx.execute(_LOCK, values)).one_or_none()
    if row is None:
        raise _unknown_agent(agent_id)
    return {**values, "most": row[0]}


async def _hold_folder(tx: Connection, actor: Actor, folder_id: str) -> None:
    """Let nobody remove a folder. Raises FolderNotFound."""
    # Before the agent, since who removes a folder holds it before its agents.
    values = {"org": actor.organization_id, "folder": folder_id}
    if (await tx.execute(_HOLD_FOLDER, values)).one_or_none() is None:
        raise unknown_folder(folder_id)


async def _limit(tx: Connection, values: dict[str, Any], limits: FileLimits) -> None:
    told = {**values, "most": limits.max_open, "chars": limits.view_chars}
    if (await tx.execute(_LIMIT, told)).rowcount == 0:
        return
    opened = (await tx.execute(_OPEN_ONES, values)).all()
    await _close(tx, values, opened[: max(0, len(opened) - limits.max_open)])
    await tx.execute(_RENEW, values)


async def _named(tx: Connection, values: dict[str, Any], names: Sequence[str]) -> dict[str, DirectoryFile]:
    """Return the files of these names. Raises FileNotFound."""
    found = {row[0]: _file_of(row) for row in await tx.execute(_BY_NAME, {**values, "names": list(names)})}
    if missing := [name for name in names if name not in found]:
        known = [row[0] for row in await tx.execute(_NAMES, {**values, "limit": _NAMED + 1})]
        more = ", and more" if len(known) > _NAMED else ""
        text = f"there is no file {missing[0]}; the files are: {', '.join(known[:_NAMED]) or 'none'}{more}"
        raise FileNotFound(text, file_name=missing[0])
    return found


async def _open(tx: Connection, values: dict[str, Any], wanted: Sequence[_Wanted], now: datetime) -> list[str]:
    """Open files; return the names of those that were closed to make room, those opened longest ago."""
    for number, (each, lines) in enumerate(wanted):
        await tx.execute(
            _OPEN,
            {
                **values,
                "folder": each.folder_id,
                "file": each.file_id,
                "start": lines.start,
                "end": lines.end,
                "now": now + timedelta(microseconds=number),
            },
        )
    mine = {each.file_id for each, _ in wanted}
    opened = (await tx.execute(_OPEN_ONES, values)).all()
    others = [row for row in opened if row[0] not in mine]
    evicted = await _close(tx, values, others[: max(0, len(opened) - values["most"])])
    await tx.execute(_RENEW, values)
    return evicted


async def _close(tx: Connection, values: dict[str, Any], rows: Sequence[Any]) -> list[str]:
    """Close files that are open; return their names."""
    if not rows:
        return []
    closed = await tx.execute(_CLOSE, {**values, "files": [row[0] for row in rows]})
    if closed.rowcount:
        await tx.execute(_RENEW, values)
    return [row[1] for row in rows]


async def _check_fence(tx: Connection, values: dict[str, Any], request: pb.OpenFilesRequest) -> None:
    """Raise the fence of a conversation. Raises Fenced and ConversationNotFound."""
    told = {**values, "conversation": request.conversation_id, "fence": request.fence}
    highest = (await tx.execute(_FENCE, told)).scalar_one_or_none()
    if highest is None or request.fence < highest:
        status = Status.NO_CONVERSATION if highest is None else Status.FENCED
        raise owner_refusal(status, request.agent_id, request.conversation_id, fence=highest or 0)
    if request.fence > highest:
        await tx.execute(_RAISE_FENCE, told)


def _digest(request: pb.OpenFilesRequest) -> bytes:
    """Return what tells a call from another one under the same key, whichever owner of the run makes it."""
    told = pb.OpenFilesRequest(
        agent_id=request.agent_id, files=request.files, close_all_others=request.close_all_others
    )
    return hashlib.sha256(told.SerializeToString(deterministic=True)).digest()[:16]


def _repeated(known: Sequence[Any], asked: dict[str, Any]) -> pb.OpenFilesResponse:
    if bytes(known[0]) != asked["hash"]:
        key = asked["key"]
        raise IdempotencyConflict(f"the key {key} was used to open other files", idempotency_key=key)
    answer = pb.OpenFilesResponse.FromString(bytes(known[1]))
    answer.repeated_opening = True
    return answer


def _file_of(row: Sequence[Any]) -> DirectoryFile:
    return DirectoryFile(name=row[0], file_id=row[1], folder_id=row[2])


def _agent_file(row: sa.Row[Any], view: str | None) -> AgentFile:
    lines = LineRange(row.start_line, row.end_line)
    return AgentFile(
        id=attachment_id(row.file_id),
        file_id=row.file_id,
        file_name=row.name,
        folder_id=row.folder_id,
        folder_name=row.folder_name,
        is_open=row.is_open,
        last_accessed_at=stamp_of(row.last_accessed_at),
        visible_content=view,
        start_line=None if lines.whole else lines.start + 1,
        end_line=lines.end,
    )


def _unknown_agent(agent_id: str) -> AgentNotFound:
    return AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)


def _unknown_file(file_id: str) -> FileNotFound:
    return FileNotFound(f"the agent has no file {file_id}", file_id=file_id)
