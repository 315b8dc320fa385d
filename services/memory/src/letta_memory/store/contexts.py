"""Contexts in PostgreSQL. The methods of the agent loop are one prepared statement each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg

from letta_common.actor import Actor
from letta_common.errors import BlockLabelTaken, IdempotencyConflict, MessageNotFound
from letta_memory.domain.contexts import (
    Committed,
    Context,
    Edited,
    NewMessage,
    RunOwner,
    Status,
    Step,
    owner_refusal,
    refusal,
)
from letta_memory.domain.edits import Append, BlockEdit, Create, Delete, Insert, Rename, Replace, Rethink
from letta_memory.store.provisions import MESSAGE_ARRAYS, Provisions, message_columns
from letta_memory.store.rows import HEAD_WIDTH, STEP_ROW, block_of, blocks_of
from letta_postgres.db import UniqueViolation, retry
from letta_postgres.statements import call

_WHO = ("org", "agent", "conversation", "run", "fence")
_BEGIN = f"{STEP_ROW} {call('memory.begin_step', *_WHO, 'pending', *MESSAGE_ARRAYS)} r"
_WITHDRAW = f"select * from {call('memory.withdraw_input', *_WHO)}"
_WINDOW = ("move", "clear", "summary", "first_kept")
_KNOWN = ("known_ids", "known_versions")
_STEP = ("step", "stop", "pending")
_COMMIT = f"{STEP_ROW} {call('memory.commit_step', *_WHO, *_STEP, *_WINDOW, *_KNOWN, *MESSAGE_ARRAYS)} r"
_WHAT = ("kind", "text", "new", "line", "all")
_WHERE = ("org", "user", "agent", "conversation", "fence", "key", "hash", "label")
_EDIT = f"{STEP_ROW} {call('memory.edit_block', *_WHERE, *_WHAT, 'new_id', 'now')} r"
_NO_SUCH_MESSAGE = "LM001"


class SqlContextStore(Provisions):
    """Contexts in PostgreSQL. With `embed_messages`, new messages wait for the embedder."""

    async def begin_step(self, actor: Actor, owner: RunOwner, messages: Sequence[NewMessage]) -> Context:
        """Raise the fence, append the input once, read the context."""
        values = {
            **_who(actor, owner),
            "pending": self._embed_messages,
            **message_columns(messages, owner.run_id),
        }
        rows = await self._hot(_BEGIN, values)
        head = rows[0]
        _check(head, owner)
        return Context(
            blocks=blocks_of(rows),
            messages=tuple(head[8]),
            last_step=head[5],
            stop_reason=head[6] or 0,
            message_count=head[3],
            passage_count=head[4] or 0,
        )

    async def withdraw_input(self, actor: Actor, owner: RunOwner) -> bool:
        """Remove the input of a run without committed steps; say whether there was any."""
        [(status, fence, withdrawn)] = await self._hot(_WITHDRAW, _who(actor, owner))
        _check((status, fence), owner)
        return bool(withdrawn)

    async def commit_step(self, actor: Actor, owner: RunOwner, step: Step) -> Committed:
        """Append a step's messages once."""
        window = step.window
        summary = window.summary if window else None
        messages = (*step.messages, summary) if summary else step.messages
        values = {
            **_who(actor, owner),
            "step": step.index,
            "stop": step.stop_reason,
            "pending": self._embed_messages,
            "move": window is not None,
            "clear": window is not None and window.cleared,
            "summary": summary is not None,
            "first_kept": (window.first_kept_id or None) if window else None,
            "known_ids": list(step.known_blocks),
            "known_versions": list(step.known_blocks.values()),
            **message_columns(messages, owner.run_id),
        }
        rows = await self._hot(_COMMIT, values)
        head = rows[0]
        _check(head, owner)
        return Committed(changed=blocks_of(rows), detached=tuple(head[7]), repeated=head[2])

    async def edit_block(self, actor: Actor, edit: BlockEdit, *, new_id: str, now: datetime) -> Edited:
        """Make an edit once."""
        values = {
            "org": actor.organization_id,
            "user": actor.user_id,
            "agent": edit.agent_id,
            "conversation": edit.conversation_id,
            "fence": edit.fence,
            "key": edit.key,
            "hash": edit.digest(),
            "label": edit.label,
            **dict(zip(_WHAT, _edit_values(edit), strict=True)),
            "new_id": new_id,
            "now": now,
        }
        try:
            rows = await self._hot(_EDIT, values)
        except UniqueViolation as error:
            raise BlockLabelTaken("another block of the agent has this label", label=edit.label) from error
        head = rows[0]
        status = Status(head[0])
        if status is not Status.DONE:
            raise refusal(status, edit, head[7] or (), fence=head[1] or 0)
        return Edited(block=block_of(head[HEAD_WIDTH:]), repeated=head[2])

    async def _hot(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        try:
            return await retry(lambda: self._db.hot(statement, values))
        except psycopg.Error as error:
            if error.sqlstate == _NO_SUCH_MESSAGE:
                raise MessageNotFound("the window begins at a message that the conversation does not have") from error
            raise
        except UniqueViolation as error:
            if error.table != "messages":
                raise
            raise IdempotencyConflict("a message with one of these ids exists already") from error


def _who(actor: Actor, owner: RunOwner) -> dict[str, str | int]:
    return {
        "org": actor.organization_id,
        "agent": owner.agent_id,
        "conversation": owner.conversation_id,
        "run": owner.run_id,
        "fence": owner.fence,
    }


def _check(head: tuple[Any, ...], owner: RunOwner) -> None:
    status = Status(head[0])
    if status is not Status.DONE:
        raise owner_refusal(status, owner.agent_id, owner.conversation_id, fence=head[1] or 0)


def _edit_values(edit: BlockEdit) -> tuple[int, str, str | None, int, bool]:  # noqa: PLR0911
    """Return kind, text, second text, line and flag, as `memory.edit_block` takes them."""
    match edit.edit:
        case Append(content):
            return 1, content, None, 0, False
        case Replace(old, new, every):
            return 2, old, new, 0, every
        case Insert(text, line):
            return 3, text, None, line, False
        case Rethink(value):
            return 4, value, None, 0, False
        case Create(value, description):
            return 5, value, description, 0, False
        case Delete():
            return 6, "", None, 0, False
        case Rename(label, description):
            return 7, label, description, 0, False
