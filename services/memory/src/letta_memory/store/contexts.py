"""Contexts in PostgreSQL. The methods of the agent loop are one prepared statement each."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from letta.common.v1.message_pb2 import Message
from letta.common.v1.usage_pb2 import StopReason
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.agent_file_pb2 import Directories
from letta_common.actor import Actor
from letta_common.errors import BlockLabelTaken
from letta_memory.domain.contexts import Status, digest, owner_refusal, refusal
from letta_memory.store.provisions import MESSAGE_ARRAYS, Provisions, message_columns
from letta_memory.store.reading.directories import directories_of
from letta_memory.store.rows import DIRECTORIES, HEAD_WIDTH, STEP_ROW, block_of, blocks_of
from letta_postgres.db import UniqueViolation
from letta_postgres.statements import Row, call

_WHO = ("org", "agent", "conversation", "run", "fence")
_WITHDRAW = f"select * from {call('memory.withdraw_input', *_WHO)}"
_WINDOW = ("move", "clear", "summary", "first_kept")
_KNOWN = ("known_ids", "known_versions")
_HELD = ("held_version", "held_seq", "held_last", *_KNOWN)
_BEGIN = f"{STEP_ROW} {call('memory.begin_step_after', *_WHO, *MESSAGE_ARRAYS, *_HELD)} r"
_STEP = ("step", "stop")
_COMMIT = f"{STEP_ROW} {call('memory.commit_step', *_WHO, *_STEP, *_WINDOW, *_KNOWN, *MESSAGE_ARRAYS)} r"
_WHAT = ("kind", "text", "new", "line", "all")
_WHERE = ("org", "user", "agent", "conversation", "fence", "key", "hash", "label")
_EDIT = f"{STEP_ROW} {call('memory.edit_block', *_WHERE, *_WHAT, 'new_id', 'now')} r"


class SqlContextStore(Provisions):
    """Contexts in PostgreSQL. It notes which conversations get messages, for search to index them."""

    async def begin_step(self, actor: Actor, request: pb.BeginStepRequest) -> pb.BeginStepResponse:
        """Raise the fence, append the input once, read what the caller does not hold of the context."""
        held = request.held if request.HasField("held") else None
        values = {
            **_who(actor, request),
            **message_columns(request.input, request.run_id),
            "held_version": held.version if held else None,
            "held_seq": held.next_position if held else None,
            "held_last": held.last_message_id if held else None,
            **_known(request.held.blocks),
        }
        rows = await self._hot(_BEGIN, values)
        head = rows[0]
        _check(head, request)
        if request.input:
            self._late.note(actor.organization_id, request.conversation_id)
        version, position, messages_held, blocks_held = head[7]
        directories = await self._newer(actor, request.agent_id, head, request.held.directories_version)
        return pb.BeginStepResponse(
            blocks=blocks_of(rows),
            messages=head[8],
            last_step=None
            if head[5] is None
            else pb.CommittedStep(step_index=head[5], stop_reason=head[6] or StopReason.STOP_REASON_UNSPECIFIED),
            message_count=head[3],
            passage_count=head[4] or 0,
            version=int(version),
            next_position=int(position),
            messages_held=messages_held == "1",
            blocks_held=blocks_held == "1",
            directories_version=directories.version if directories else head[DIRECTORIES] or 0,
            directories=directories,
        )

    async def withdraw_input(self, actor: Actor, request: pb.WithdrawInputRequest) -> bool:
        """Remove the input of a run without committed steps; say whether there was any."""
        [(status, fence, withdrawn)] = await self._hot(_WITHDRAW, _who(actor, request))
        _check((status, fence), request)
        return bool(withdrawn)

    async def commit_step(self, actor: Actor, request: pb.CommitStepRequest) -> pb.CommitStepResponse:
        """Append a step's messages once."""
        window = request.window
        messages: list[Message] = [*request.messages]
        if summary := window.HasField("summary"):
            # Last, since commit_step takes the last message for the summary.
            messages.append(window.summary)
        values = {
            **_who(actor, request),
            "step": request.step_index,
            "stop": request.stop_reason,
            "move": request.HasField("window"),
            "clear": window.cleared and not summary,
            "summary": summary,
            "first_kept": window.first_kept_message_id or None,
            **_known(request.known_blocks),
            **message_columns(messages, request.run_id),
        }
        rows = await self._hot(_COMMIT, values)
        head = rows[0]
        _check(head, request)
        self._late.note(actor.organization_id, request.conversation_id)
        directories = await self._newer(actor, request.agent_id, head, request.known_directories_version)
        return pb.CommitStepResponse(
            changed_blocks=blocks_of(rows),
            detached_block_ids=head[7],
            repeated_step=head[2],
            directories_version=directories.version if directories else head[DIRECTORIES] or 0,
            directories=directories,
        )

    async def _newer(self, actor: Actor, agent_id: str, head: Row, known: int) -> Directories | None:
        """Return an agent's directories unless it has none or the caller has them."""
        if head[DIRECTORIES] in {None, known}:
            return None
        return await directories_of(self._db, actor.organization_id, agent_id)

    async def edit_block(
        self, actor: Actor, request: pb.EditBlockRequest, *, new_id: str, now: datetime
    ) -> pb.EditBlockResponse:
        """Make an edit once."""
        values = {
            "org": actor.organization_id,
            "user": actor.user_id,
            "agent": request.agent_id,
            "conversation": request.conversation_id,
            "fence": request.fence,
            "key": request.idempotency_key,
            "hash": digest(request),
            "label": request.label,
            **dict(zip(_WHAT, _edit_values(request), strict=True)),
            "new_id": new_id,
            "now": now,
        }
        try:
            rows = await self._hot(_EDIT, values)
        except UniqueViolation as error:
            raise BlockLabelTaken("another block of the agent has this label", label=request.label) from error
        head = rows[0]
        status = Status(head[0])
        if status is not Status.DONE:
            raise refusal(status, request, head[7] or (), fence=head[1] or 0)
        return pb.EditBlockResponse(block=block_of(head[HEAD_WIDTH:]), repeated_edit=head[2])


_Owned = pb.BeginStepRequest | pb.CommitStepRequest | pb.WithdrawInputRequest


def _who(actor: Actor, request: _Owned) -> dict[str, str | int]:
    return {
        "org": actor.organization_id,
        "agent": request.agent_id,
        "conversation": request.conversation_id,
        "run": request.run_id,
        "fence": request.fence,
    }


def _known(blocks: Iterable[pb.BlockVersion]) -> dict[str, list[Any]]:
    """Return the blocks as statements compare them: sorted; of a block that is named twice, the last version counts."""
    known = dict(sorted((block.block_id, block.version) for block in blocks))
    return {"known_ids": list(known), "known_versions": list(known.values())}


def _check(head: tuple[Any, ...], request: _Owned) -> None:
    status = Status(head[0])
    if status is not Status.DONE:
        raise owner_refusal(status, request.agent_id, request.conversation_id, fence=head[1] or 0)


def _edit_values(request: pb.EditBlockRequest) -> tuple[int, str, str | None, int, bool]:  # noqa: PLR0911
    """Return kind, text, second text, line and flag, as `memory.edit_block` takes them."""
    # The first number is p_kind of edit_block.sql.
    match request.WhichOneof("edit"):
        case "append":
            return 1, request.append.content, None, 0, False
        case "replace":
            change = request.replace
            return 2, change.old_text, change.new_text, 0, change.all_occurrences
        case "insert":
            return 3, request.insert.text, None, request.insert.line, False
        case "rethink":
            return 4, request.rethink.value, None, 0, False
        case "create":
            return 5, request.create.value, request.create.description, 0, False
        case "rename":
            rename = request.rename
            return 7, rename.label, rename.description if rename.HasField("description") else None, 0, False
        case _:
            return 6, "", None, 0, False
