"""Long histories, written into the database of a server."""

from __future__ import annotations

import psycopg

from letta.common.v1.message_pb2 import ContentPart, Message, MessageRole, TextContent
from letta_common.values.ids import new_id
from letta_memory.store.provisions import MESSAGE_ARRAYS, message_columns

_CHUNK = 10_000
_ROLES = (MessageRole.MESSAGE_ROLE_USER, MessageRole.MESSAGE_ROLE_ASSISTANT)
_APPEND = (
    "select memory.append_messages(organization_id, id, agent_id, next_seq, "
    "%(ids)s::text[], %(roles)s::smallint[], %(types)s::integer[], %(flags)s::smallint[], %(runs)s::text[], "
    "%(steps)s::text[], %(groups)s::text[], %(times)s::timestamptz[], %(searches)s::text[], %(bodies)s::bytea[]) "
    "from memory.conversations where agent_id = %(agent)s"
)
_ADVANCE = (
    "update memory.conversations set next_seq = next_seq + %(n)s, message_count = message_count + %(n)s, "
    "window_version = window_version + 1 where agent_id = %(agent)s"
)
_FORGET = "update memory.conversations set window_seq = next_seq - %(kept)s where agent_id = %(agent)s"


def write_history(database_url: str, agent_id: str, length: int, *, in_context: int = 0) -> list[str]:
    """Give an agent's conversation so many messages more; return their texts. Without a number all are in context."""
    texts = [f"This is message {at} of a long talk." for at in range(length)]
    with psycopg.connect(database_url) as conn:
        for start in range(0, length, _CHUNK):
            columns = message_columns([_message(at, texts[at]) for at in range(start, min(length, start + _CHUNK))])
            assert set(columns) == set(MESSAGE_ARRAYS)
            conn.execute(_APPEND, {**columns, "agent": agent_id})
            conn.execute(_ADVANCE, {"n": len(columns["ids"]), "agent": agent_id})
        if in_context:
            conn.execute(_FORGET, {"kept": in_context, "agent": agent_id})
        conn.commit()
        conn.autocommit = True
        conn.execute("analyze memory.messages")
    return texts


def _message(at: int, text: str) -> Message:
    said = Message(id=new_id("message"), role=_ROLES[at % 2], parts=[ContentPart(text=TextContent(text=text))])
    said.created_at.GetCurrentTime()
    return said
