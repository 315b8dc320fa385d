"""Agents in PostgreSQL."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC as _UTC
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from letta.agent.v1 import agent_service_pb2 as pb
from letta_agent.domain.agents.records import (
    Agent,
    ConversationLock,
    CountAgentsRequest,
    ListAgentsRequest,
    Stage,
    StoredAgent,
)
from letta_agent.store.tables import agent_tools, agents, conversations, queue, run_events, run_steps, runs
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound
from letta_common.values.paging import Page
from letta_postgres.compiled import Compiled
from letta_postgres.connections import Connection
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import Keyset, fetch_page

_TOOLS = (
    sa.select(sa.func.array_agg(pg.aggregate_order_by(agent_tools.c.tool_id, agent_tools.c.position)))
    .where(agent_tools.c.organization_id == agents.c.organization_id, agent_tools.c.agent_id == agents.c.id)
    .correlate(agents)
    .scalar_subquery()
)
_DEFAULT_THREAD = sa.and_(queue.c.organization_id == agents.c.organization_id, queue.c.conversation_id == agents.c.id)
# One statement, so that no run is admitted between the look at the row and the higher fence.
_SEIZE = (
    "insert into agent.conversation_queue as q (organization_id, conversation_id, agent_id, fence) "
    "values (%s, %s, %s, %s::bigint + 1) on conflict (organization_id, conversation_id) do update "
    "set fence = greatest(q.fence, %s::bigint) + 1 where q.run_id is null and q.pending = 0 returning fence"
)
_ROW = (
    "organization_id, id, state, creation, request_id, request_hash, created_by_id, created_at, name, agent_type, "
    "tags, project_id, template_id, base_template_id, hidden, version, definition, secrets, updated_at"
)
_CREATE = (
    f"with made as (insert into agent.agents ({_ROW}) values ({', '.join(f'%({name})s' for name in _ROW.split(', '))}) "
    "returning organization_id, id) insert into agent.agent_tools (organization_id, agent_id, tool_id, position) "
    "select m.organization_id, m.id, t.id, t.place - 1 from made m, "
    "unnest(%(tool_ids)s::text[]) with ordinality t(id, place)"
)
_FINISH = "update agent.agents set state = %s, creation = null where organization_id = %s and id = %s and state = %s"
_MINE = agents.c.organization_id == sa.bindparam("organization_id")
_COLUMNS = (
    agents.c.id,
    agents.c.definition,
    _TOOLS,
    agents.c.secrets,
    agents.c.version,
    agents.c.state,
    agents.c.creation,
    agents.c.request_id,
    agents.c.created_by_id,
    # While a run holds the conversation it is dealing with what waited.
    sa.case((queue.c.run_id.is_(None), queue.c.approval_message)).label("approval_message"),
    queue.c.last_run_completion,
    queue.c.last_run_duration_ms,
    queue.c.last_stop_reason,
    agents.c.request_hash,
)
_APPROVAL = ("approval_message_id", "approval_call_ids", "approval_message", "approval_since", "failed_hash")
"""What a conversation knows of its messages."""
_ORDERS: dict[int, sa.ColumnElement[Any]] = {
    pb.AGENT_ORDER_BY_UPDATED_AT: agents.c.updated_at,
    pb.AGENT_ORDER_BY_LAST_RUN_COMPLETION: sa.func.coalesce(
        queue.c.last_run_completion, sa.literal(datetime.min, sa.DateTime())
    ),
}


_EXACT = ("name", "project_id", "template_id", "base_template_id", "created_by_id")
"""Filters that a column equals."""


class SqlAgentStore:
    """Agents of organizations."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, actor: Actor, agent: StoredAgent) -> bool:
        """Store a new agent; False when one was stored for the same request."""
        row = _row(agent) | {
            "organization_id": actor.organization_id,
            "id": agent.id,
            "state": int(agent.stage),
            "creation": agent.creation,
            "request_id": agent.request_id or None,
            "request_hash": agent.request_hash or None,
            "created_by_id": agent.created_by,
            "created_at": agent.state.created_at.ToDatetime(tzinfo=_UTC),
        }
        try:
            await self._db.hot(_CREATE, row | {"tool_ids": list(agent.tool_ids)})
        except UniqueViolation as error:
            if error.constraint == "agents_request_id":
                return False
            raise
        return True

    async def get_by_request(self, actor: Actor, request_id: str) -> StoredAgent:
        """Return the agent that a request made, finished or not. Raises AgentNotFound."""
        return await self._one(_by_request(), actor, request_id)

    async def get(self, actor: Actor, agent_id: str) -> StoredAgent:
        """Return one agent that is ready. Raises AgentNotFound."""
        return await self._one(_by_id(), actor, agent_id)

    async def hold(self, actor: Actor, conversation_id: str) -> ConversationLock:
        """Return the run that holds a conversation, if there is one, and the newest fence."""
        query = sa.select(queue.c.run_id, queue.c.fence, queue.c.pending).where(self._thread(actor, conversation_id))
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return ConversationLock(row[0] or "", max(1, row[1]), row[2]) if row is not None else ConversationLock()

    async def seize(self, actor: Actor, agent_id: str, conversation_id: str, *, above: int = 0) -> ConversationLock:
        """Raise the fence of a conversation above this one; one that is busy stays as it is."""
        rows = await self._db.hot(_SEIZE, (actor.organization_id, conversation_id, agent_id, above, above))
        return ConversationLock(fence=rows[0][0]) if rows else await self.hold(actor, conversation_id)

    async def forget(self, actor: Actor, conversation_id: str, fence: int) -> None:
        """Forget what waits for approval, and the size of the context, unless the fence has risen since."""
        nothing = dict.fromkeys(_APPROVAL)
        here = sa.and_(self._thread(actor, conversation_id), queue.c.fence == fence)
        async with self._db.begin() as conn:
            await conn.execute(sa.update(queue).where(here).values(**nothing, context_tokens=0))

    async def list_agents(
        self, actor: Actor, wanted: ListAgentsRequest, page: Page, among: Collection[str] | None = None
    ) -> list[StoredAgent]:
        """Return a page of agents that are ready, of those with these ids where they are given.

        The first page of a list is what a screen asks for: it runs hot.
        """
        values = _values(wanted, among)
        if not page.before and not page.after:
            first = _first_page(frozenset(values), wanted.match_all_tags, wanted.order_by, page)
            rows = await first.run(self._db, organization_id=actor.organization_id, **values)
            return [_agent(row) for row in (rows[::-1] if page.backwards else rows)]
        mine = agents.c.organization_id == actor.organization_id
        query = _query().where(mine, *_conditions(values, all_tags=wanted.match_all_tags))
        async with self._db.connect() as conn:
            return [_agent(row) for row in await fetch_page(conn, query, page, _keyset(mine, wanted.order_by))]

    async def list_tags(self, actor: Actor, page: Page, *, containing: str) -> list[str]:
        """Return a page of the labels of agents, each once; `before` and `after` are labels, known or not."""
        tags = sa.func.unnest(agents.c.tags).table_valued(sa.column("tag", sa.Text)).render_derived()
        place = tags.c.tag.collate("C")
        mine = sa.and_(agents.c.organization_id == actor.organization_id, agents.c.state == Stage.READY)
        query = sa.select(place).select_from(agents.join(tags, sa.true())).where(mine)
        if containing:
            query = query.where(tags.c.tag.icontains(containing, autoescape=True))
        if page.after:
            query = query.where(place > page.after if page.ascending else place < page.after)
        if page.before:
            query = query.where(place < page.before if page.ascending else place > page.before)
        order = place.asc() if page.ascending is not page.backwards else place.desc()
        async with self._db.connect() as conn:
            found = [row[0] for row in await conn.execute(query.distinct().order_by(order).limit(page.limit))]
        return found[::-1] if page.backwards else found

    async def count(self, actor: Actor, wanted: CountAgentsRequest, among: Collection[str] | None = None) -> int:
        """Count agents that are ready, of those with these ids where they are given."""
        mine = agents.c.organization_id == actor.organization_id
        query = sa.select(sa.func.count()).select_from(agents.outerjoin(queue, _DEFAULT_THREAD))
        conditions = _conditions(_values(wanted, among), all_tags=wanted.match_all_tags)
        async with self._db.connect() as conn:
            return int((await conn.execute(query.where(mine, *conditions))).scalar_one())

    async def finish(self, actor: Actor, agent_id: str) -> None:
        """Mark an agent as ready."""
        await self._db.hot(_FINISH, (Stage.READY, actor.organization_id, agent_id, Stage.MAKING))

    async def update(self, actor: Actor, agent: StoredAgent, *, expected: int) -> bool:
        """Write definition, secrets and tools if the stored version is still `expected`; say whether it was."""
        async with self._db.begin() as conn:
            same = sa.and_(self._is(actor, agent.id), agents.c.version == expected)
            done = await conn.execute(sa.update(agents).where(same).values(**_row(agent)))
            if done.rowcount != 1:
                return False
            kept = sa.and_(
                agent_tools.c.organization_id == actor.organization_id,
                agent_tools.c.agent_id == agent.id,
                agent_tools.c.tool_id.not_in(agent.tool_ids),
            )
            await conn.execute(sa.delete(agent_tools).where(kept))
            await self._put_tools(conn, actor, agent)
        return True

    async def begin_removal(self, actor: Actor, agent_id: str) -> None:
        """Take an agent out of every list. Raises AgentNotFound."""
        async with self._db.begin() as conn:
            there = sa.and_(self._is(actor, agent_id), agents.c.state != Stage.REMOVING)
            # The request id is given up, so that the same request makes a new agent.
            change = sa.update(agents).where(there).values(state=int(Stage.REMOVING), request_id=None)
            if (await conn.execute(change)).rowcount != 1:
                raise _no_agent(agent_id)

    async def delete(self, actor: Actor, agent_id: str) -> None:
        """Remove an agent with its conversations and runs."""
        mine = actor.organization_id
        async with self._db.begin() as conn:
            gone = sa.select(runs.c.id).where(runs.c.organization_id == mine, runs.c.agent_id == agent_id)
            events = sa.delete(run_events).where(run_events.c.organization_id == mine, run_events.c.run_id.in_(gone))
            # Events have no agent, so they go first, while the runs that name them are there.
            await conn.execute(events)
            for table in (run_steps, runs, queue, conversations, agent_tools):
                owned = sa.and_(table.c.organization_id == mine, table.c.agent_id == agent_id)
                await conn.execute(sa.delete(table).where(owned))
            await conn.execute(sa.delete(agents).where(self._is(actor, agent_id)))

    async def list_unfinished(self, before: datetime, limit: int) -> list[tuple[Actor, StoredAgent]]:
        """Return agents of all organizations that were left half made or half removed."""
        query = _query().add_columns(agents.c.organization_id)
        left = query.where(agents.c.state != Stage.READY, agents.c.updated_at < before).limit(limit)
        async with self._db.connect() as conn:
            rows = list(await conn.execute(left))
        return [(Actor(row[-1], row.created_by_id or ""), _agent(row[:-1])) for row in rows]

    async def _one(self, statement: Compiled, actor: Actor, key: str) -> StoredAgent:
        rows = await statement.run(self._db, organization_id=actor.organization_id, key=key)
        if not rows:
            raise _no_agent(key)
        return _agent(rows[0])

    async def _put_tools(self, conn: Connection, actor: Actor, agent: StoredAgent) -> None:
        rows = [
            {"organization_id": actor.organization_id, "agent_id": agent.id, "tool_id": tool_id, "position": position}
            for position, tool_id in enumerate(agent.tool_ids)
        ]
        if rows:
            put = pg.insert(agent_tools).values(rows)
            key = ("organization_id", "agent_id", "tool_id")
            changed = {"position": put.excluded.position}
            await conn.execute(put.on_conflict_do_update(index_elements=key, set_=changed))

    def _thread(self, actor: Actor, conversation_id: str) -> sa.ColumnElement[bool]:
        return sa.and_(queue.c.organization_id == actor.organization_id, queue.c.conversation_id == conversation_id)

    def _is(self, actor: Actor, agent_id: str) -> sa.ColumnElement[bool]:
        return sa.and_(agents.c.organization_id == actor.organization_id, agents.c.id == agent_id)


def _query() -> sa.Select[Any]:
    return sa.select(*_COLUMNS).select_from(agents.outerjoin(queue, _DEFAULT_THREAD))


@functools.cache
def _by_id() -> Compiled:
    return Compiled(_query().where(_MINE, agents.c.id == sa.bindparam("key"), agents.c.state == Stage.READY))


@functools.cache
def _by_request() -> Compiled:
    return Compiled(_query().where(_MINE, agents.c.request_id == sa.bindparam("key")))


# Filters combine in many ways; the few that screens use stay compiled.
@functools.lru_cache(maxsize=64)
def _first_page(names: frozenset[str], all_tags: bool, order_by: int, page: Page) -> Compiled:
    query = _query().where(_MINE, *_conditions(dict.fromkeys(sorted(names)), all_tags=all_tags))
    return Compiled(_keyset(_MINE, order_by).narrow(query, page))


def _keyset(mine: sa.ColumnElement[bool], order_by: int) -> Keyset:
    return Keyset(
        at=_ORDERS.get(order_by, agents.c.created_at), id=agents.c.id, scope=mine, large=(agents.c.definition,)
    )


def _values(wanted: ListAgentsRequest | CountAgentsRequest, among: Collection[str] | None) -> dict[str, Any]:
    """Return the values that a request filters by, by the names of their conditions."""
    found: dict[str, Any] = {name: value for name in _EXACT if (value := getattr(wanted, name))}
    if wanted.tags:
        found["tags"] = list(wanted.tags)
    if wanted.query_text:
        found["query_text"] = re.sub("([/%_])", r"/\1", wanted.query_text)
    if wanted.last_stop_reason:
        found["last_stop_reason"] = wanted.last_stop_reason
    if among is not None:
        found["ids"] = list(among)
    return found


def _conditions(values: Mapping[str, Any], *, all_tags: bool) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of filters, each with its value under its name."""
    tags = agents.c.tags
    made: dict[str, Callable[[sa.BindParameter[Any]], sa.ColumnElement[bool]]] = {
        "tags": tags.contains if all_tags else tags.overlap,
        "query_text": lambda value: agents.c.name.icontains(value, escape="/"),
        "last_stop_reason": lambda value: queue.c.last_stop_reason == value,
        "ids": lambda value: agents.c.id == sa.func.any(value),
        **{name: agents.c[name].__eq__ for name in _EXACT},
    }
    types = {"tags": tags.type, "last_stop_reason": queue.c.last_stop_reason.type, "ids": tags.type}
    named = [made[name](sa.bindparam(name, value, types.get(name, sa.Text()))) for name, value in values.items()]
    return [agents.c.state == Stage.READY, agents.c.hidden.is_(False), *named]


def _row(agent: StoredAgent) -> dict[str, Any]:
    state = agent.state
    return {
        "name": state.name,
        "agent_type": int(state.agent_type),
        "tags": list(state.tags),
        "project_id": state.project_id or None,
        "template_id": state.template_id or None,
        "base_template_id": state.base_template_id or None,
        "hidden": state.hidden,
        "version": agent.version,
        "definition": state.SerializeToString(),
        "secrets": agent.secrets,
        "updated_at": state.updated_at.ToDatetime(tzinfo=_UTC),
    }


def _agent(row: Sequence[Any]) -> StoredAgent:
    agent_id, definition, tools, secrets, version, stage, creation, request_id, created_by, approval = row[:10]
    completion, duration, stop = row[10:13]
    state = Agent.FromString(definition)
    if completion is not None:
        state.last_run_completion.FromDatetime(completion)
        state.last_run_duration.FromMilliseconds(duration)
        state.last_stop_reason = stop
    return StoredAgent(
        id=agent_id,
        state=state,
        tool_ids=tuple(tools or ()),
        secrets=bytes(secrets or b""),
        version=version,
        stage=Stage(stage),
        creation=bytes(creation or b""),
        request_id=request_id or "",
        request_hash=bytes(row[13] or b""),
        created_by=created_by or "",
        approval=bytes(approval or b""),
    )


def _no_agent(agent_id: str) -> AgentNotFound:
    return AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)
