"""BlockHistoryService: what became of blocks, and bringing it back."""

from __future__ import annotations

import asyncio
import hashlib
import random
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.common.v1 import sort_order_pb2
from letta.memory.v1 import block_history_service_pb2 as pb
from letta.memory.v1 import block_pb2, block_service_pb2, context_service_pb2
from letta.memory.v1.block_revision_pb2 import BlockRevision, BlockWrite
from letta_common.errors import (
    BlockLabelTaken,
    BlockLimitExceeded,
    BlockNotFound,
    BlockRevisionNotFound,
    CursorNotFound,
    NothingToRedo,
    NothingToUndo,
    StaleEtag,
)
from letta_common.values.ids import new_id
from tests.contract.rpc.memory.conftest import BOB


async def make(memory: Any, *values: str, label: str = "note", **more: Any) -> block_pb2.Block:
    """Make a block and give it these values one after the other."""
    block = block_pb2.Block(label=label, value=values[0], **more)
    made = (await memory.blocks.CreateBlock(block_service_pb2.CreateBlockRequest(block=block), timeout=10)).block
    for value in values[1:]:
        made = await set_to(memory, made.id, value=value)
    return made


async def set_to(memory: Any, block_id: str, **values: Any) -> block_pb2.Block:
    request = block_service_pb2.UpdateBlockRequest(
        block_id=block_id, block=block_pb2.Block(**values), update_mask=FieldMask(paths=[*values.keys() - {"etag"}])
    )
    return (await memory.blocks.UpdateBlock(request, timeout=10)).block


async def revisions(memory: Any, block_id: str, **more: Any) -> list[BlockRevision]:
    request = pb.ListBlockRevisionsRequest(block_id=block_id, **more)
    return list((await memory.history.ListBlockRevisions(request, timeout=10)).revisions)


async def revision(memory: Any, block_id: str, version: int) -> BlockRevision:
    request = pb.GetBlockRevisionRequest(block_id=block_id, version=version)
    return (await memory.history.GetBlockRevision(request, timeout=10)).revision


async def restore(memory: Any, block_id: str, version: int, etag: str = "") -> block_pb2.Block:
    request = pb.RestoreBlockRequest(block_id=block_id, version=version, etag=etag)
    return (await memory.history.RestoreBlock(request, timeout=10)).block


async def undo(memory: Any, block_id: str, etag: str = "") -> block_pb2.Block:
    return (await memory.history.UndoBlock(pb.UndoBlockRequest(block_id=block_id, etag=etag), timeout=10)).block


async def redo(memory: Any, block_id: str, etag: str = "") -> block_pb2.Block:
    return (await memory.history.RedoBlock(pb.RedoBlockRequest(block_id=block_id, etag=etag), timeout=10)).block


async def diff(memory: Any, block_id: str, former: int, other: int = 0) -> pb.DiffBlockRevisionsResponse:
    request = pb.DiffBlockRevisionsRequest(block_id=block_id, from_version=former, to_version=other)
    return await memory.history.DiffBlockRevisions(request, timeout=10)


async def test_each_write_is_a_revision_that_says_who_wrote_it(memory: Any) -> None:
    agent_id, run_id = await memory.agent("notes"), new_id("run")
    await memory.edit(
        agent_id, "notes", key=f"{run_id}:2:1", append=context_service_pb2.AppendEdit(content="by a tool")
    )
    listed = await memory.blocks.ListAgentBlocks(
        block_service_pb2.ListAgentBlocksRequest(agent_id=agent_id), timeout=10
    )
    block_id = listed.blocks[0].id
    await set_to(memory, block_id, description="by a person")
    third, second, first = await revisions(memory, block_id)

    assert [(each.version, each.value) for each in (first, second, third)] == [
        (1, "notes"),
        (2, "notes\nby a tool"),
        (3, "notes\nby a tool"),
    ]
    assert [each.written_by for each in (first, second, third)] == [
        BlockWrite.BLOCK_WRITE_SET,
        BlockWrite.BLOCK_WRITE_TOOL_APPEND,
        BlockWrite.BLOCK_WRITE_SET,
    ]
    assert (second.user_id, second.agent_id, second.conversation_id) == ("user-ann", agent_id, agent_id)
    assert (second.run_id, second.step_index, second.call_index) == (run_id, 2, 1)
    assert third.description == "by a person"
    assert not any(third.HasField(name) for name in ("agent_id", "run_id", "step_index", "restored_version"))
    assert third.value_sha256 == hashlib.sha256(third.value.encode()).hexdigest()


@pytest.mark.parametrize(
    ("kind", "wrote"),
    [
        ({"replace": context_service_pb2.ReplaceEdit(old_text="notes", new_text="x")}, "TOOL_REPLACE"),
        ({"insert": context_service_pb2.InsertEdit(text="x", line=0)}, "TOOL_INSERT"),
        ({"rethink": context_service_pb2.RethinkEdit(value="x")}, "TOOL_RETHINK"),
        ({"create": context_service_pb2.CreateEdit(value="x")}, "TOOL_CREATE"),
        ({"rename": context_service_pb2.RenameEdit(label="x")}, "TOOL_RENAME"),
        ({"delete": context_service_pb2.DeleteEdit()}, "TOOL_DELETE"),
    ],
)
async def test_a_revision_says_how_a_tool_wrote_it(memory: Any, kind: dict[str, Any], wrote: str) -> None:
    agent_id = await memory.agent("notes")
    block_id = (await memory.edit(agent_id, "notes", **kind)).block.id

    assert (await revision(memory, block_id, 2)).written_by == BlockWrite.Value(f"BLOCK_WRITE_{wrote}")


async def test_revisions_come_in_pages(memory: Any) -> None:
    block = await make(memory, *"abcde")

    assert [each.value for each in await revisions(memory, block.id, limit=2)] == ["e", "d"]
    assert [each.value for each in await revisions(memory, block.id, limit=2, after=f"{block.id}/4")] == ["c", "b"]
    assert [each.value for each in await revisions(memory, block.id, limit=2, before=f"{block.id}/2")] == ["d", "c"]
    ascending = await revisions(memory, block.id, limit=2, order=sort_order_pb2.SORT_ORDER_ASC, after=f"{block.id}/1")
    assert [each.value for each in ascending] == ["b", "c"]
    assert await revisions(memory, block.id, after=f"{block.id}/1") == []
    other = await make(memory, "a")
    for cursor in (f"{block.id}/9", f"{other.id}/1", "x", block.id):
        with pytest.raises(CursorNotFound):
            await revisions(memory, block.id, after=cursor)


async def test_a_page_ends_where_its_texts_are_too_much(memory: Any) -> None:
    block = await make(memory, *("a" * 900_000 for _ in range(12)), limit=1_000_000)

    assert 3 < len(await revisions(memory, block.id)) < 12


async def test_what_there_is_not_is_not_found(memory: Any) -> None:
    block = await make(memory, "a")
    for call in (revision(memory, block.id, 2), restore(memory, block.id, 2), diff(memory, block.id, 1, 2)):
        with pytest.raises(BlockRevisionNotFound) as found:
            await call
        assert found.value.metadata == {"block_id": block.id, "version": "2"}


async def test_blocks_of_others_are_not_found(memory: Any) -> None:
    block = await make(memory, "a", "b")
    with memory.actor(BOB):
        for call in (
            revisions(memory, block.id),
            revision(memory, block.id, 1),
            diff(memory, block.id, 1),
            restore(memory, block.id, 1),
            undo(memory, block.id),
            redo(memory, block.id),
        ):
            with pytest.raises(BlockNotFound):
                await call


async def test_a_deleted_block_has_no_history(memory: Any) -> None:
    block = await make(memory, "a", "b")
    await memory.blocks.DeleteBlock(block_service_pb2.DeleteBlockRequest(block_id=block.id), timeout=10)

    with pytest.raises(BlockNotFound):
        await revisions(memory, block.id)


async def test_a_block_is_deleted_only_as_it_was_read(memory: Any) -> None:
    block = await make(memory, "a")
    await set_to(memory, block.id, value="b")
    with pytest.raises(StaleEtag):
        await memory.blocks.DeleteBlock(
            block_service_pb2.DeleteBlockRequest(block_id=block.id, etag=block.etag), timeout=10
        )

    await memory.blocks.DeleteBlock(block_service_pb2.DeleteBlockRequest(block_id=block.id, etag="2"), timeout=10)
    with pytest.raises(BlockNotFound):
        await memory.blocks.DeleteBlock(block_service_pb2.DeleteBlockRequest(block_id=block.id, etag="2"), timeout=10)


async def test_a_diff_tells_the_lines_that_differ(memory: Any) -> None:
    old = "\n".join(f"line {number}" for number in range(12))
    block = await make(memory, old, old.replace("line 5", "LINE 5\nmore"))
    told = await diff(memory, block.id, 1)

    assert told.unified_diff == (
        "--- version 1\n+++ version 2\n@@ -3,7 +3,8 @@\n line 2\n line 3\n line 4\n-line 5\n+LINE 5\n+more\n"
        " line 6\n line 7\n line 8\n"
    )
    assert (told.former.version, told.other.version) == (1, 2)
    assert (await diff(memory, block.id, 2, 2)).unified_diff == ""


async def test_a_restored_block_is_what_it_was(memory: Any) -> None:
    block = await make(memory, "first", description="d")
    await set_to(memory, block.id, value="second", label="other", limit=200)
    cleared = block_service_pb2.UpdateBlockRequest(
        block_id=block.id, block=block_pb2.Block(), update_mask=FieldMask(paths=["description"])
    )
    await memory.blocks.UpdateBlock(cleared, timeout=10)
    restored = await restore(memory, block.id, 1)

    assert (restored.label, restored.value, restored.description) == ("note", "first", "d")
    assert (restored.version, restored.etag, restored.limit) == (4, "4", 200)
    found = await revision(memory, block.id, 4)
    assert (found.written_by, found.restored_version) == (BlockWrite.BLOCK_WRITE_RESTORE, 1)
    assert not (await restore(memory, block.id, 3)).HasField("description")


async def test_a_stale_etag_restores_and_undoes_nothing(memory: Any) -> None:
    block = await make(memory, "a", "b", "c")
    for call in (
        restore(memory, block.id, 1, etag="2"),
        undo(memory, block.id, etag="2"),
        redo(memory, block.id, etag="2"),
    ):
        with pytest.raises(StaleEtag):
            await call

    assert (await undo(memory, block.id, etag="3")).value == "b"
    with pytest.raises(StaleEtag):
        await undo(memory, block.id, etag="3")


async def test_a_text_beyond_the_present_limit_is_not_restored(memory: Any) -> None:
    block = await make(memory, "a" * 50, "b")
    await set_to(memory, block.id, limit=10)

    with pytest.raises(BlockLimitExceeded):
        await restore(memory, block.id, 1)


async def test_a_label_that_an_agent_has_by_now_is_not_restored(memory: Any) -> None:
    agent_id = await memory.agent("notes")
    listed = await memory.blocks.ListAgentBlocks(
        block_service_pb2.ListAgentBlocksRequest(agent_id=agent_id), timeout=10
    )
    block_id = listed.blocks[0].id
    await set_to(memory, block_id, label="diary")
    await memory.edit(agent_id, "notes", create=context_service_pb2.CreateEdit(value="x"))

    with pytest.raises(BlockLabelTaken):
        await restore(memory, block_id, 1)


async def test_undoing_and_doing_again_go_back_and_forth(memory: Any) -> None:
    block = await make(memory, "a", "b", "c")

    assert [(await undo(memory, block.id)).value for _ in range(2)] == ["b", "a"]
    with pytest.raises(NothingToUndo):
        await undo(memory, block.id)
    assert [(await redo(memory, block.id)).value for _ in range(2)] == ["b", "c"]
    with pytest.raises(NothingToRedo):
        await redo(memory, block.id)


async def test_a_write_after_undoing_is_what_is_undone_next(memory: Any) -> None:
    block = await make(memory, "a", "b", "c")
    await undo(memory, block.id)
    await set_to(memory, block.id, value="d")

    with pytest.raises(NothingToRedo):
        await redo(memory, block.id)
    assert [(await undo(memory, block.id)).value for _ in range(2)] == ["b", "a"]
    assert [(await redo(memory, block.id)).value for _ in range(2)] == ["b", "d"]


async def test_writers_at_once_lose_nothing(memory: Any) -> None:
    """Tools append, callers change with an etag, others undo and restore: each write is there, in one order."""
    agent_id = await memory.agent("notes")
    listed = await memory.blocks.ListAgentBlocks(
        block_service_pb2.ListAgentBlocksRequest(agent_id=agent_id), timeout=10
    )
    block_id = listed.blocks[0].id
    acknowledged: list[int] = []

    async def append(number: int) -> None:
        edit = context_service_pb2.AppendEdit(content=f"tool {number}")
        acknowledged.append((await memory.edit(agent_id, "notes", append=edit)).block.version)

    async def add(number: int) -> None:
        while True:
            read = (
                await memory.blocks.GetBlock(block_service_pb2.GetBlockRequest(block_id=block_id), timeout=10)
            ).block
            try:
                made = await set_to(memory, block_id, value=f"{read.value}\ncaller {number}", etag=read.etag)
            except StaleEtag:
                continue
            acknowledged.append(made.version)
            return

    await asyncio.gather(*(work(number) for number in range(12) for work in (append, add)))
    found = await revisions(memory, block_id, order=sort_order_pb2.SORT_ORDER_ASC)

    assert sorted(acknowledged) == [each.version for each in found][1:] == list(range(2, 26))
    lines = found[-1].value.split("\n")
    assert sorted(lines[1:]) == sorted([f"{who} {number}" for who in ("tool", "caller") for number in range(12)])
    assert all(after.value.startswith(before.value + "\n") for before, after in pairwise(found))


async def test_any_revision_restored_equals_it(memory: Any) -> None:
    chance = random.Random(7)
    values = ["".join(chance.choices("ab\n\u00e9\U0001f600 ", k=chance.randrange(200))) for _ in range(12)]
    block = await make(memory, *values)
    for number in chance.sample(range(12), 12):
        restored = await restore(memory, block.id, number + 1)
        found = await revision(memory, block.id, restored.version)
        assert restored.value == values[number]
        assert found.value_sha256 == hashlib.sha256(values[number].encode()).hexdigest()
        assert found.restored_version == number + 1


class Watching:
    """A stream, read event by event."""

    def __init__(self, memory: Any, **asked: Any) -> None:
        self.stream = memory.history.WatchBlocks(pb.WatchBlocksRequest(**asked), timeout=60)
        self.position = ""

    async def next(self) -> pb.WatchBlocksResponse:
        event = await anext(aiter(self.stream))
        self.position = event.position
        return event

    async def written(self) -> tuple[str, str]:
        event = await self.next()
        assert event.WhichOneof("event") == "written", event
        return event.written.block_id, event.written.value

    def close(self) -> None:
        self.stream.cancel()


async def test_a_watch_tells_writes_of_the_organization_as_they_happen(memory: Any, stranger: Any) -> None:
    with stranger:
        old = await make(memory, "old")
        watching = Watching(memory)
        present = (await watching.next()).present
        new = await make(memory, "a", "b")
        await set_to(memory, old.id, value="changed")
        told = [await watching.written() for _ in range(3)]
        watching.close()

    assert [(each.block_id, each.version) for each in present.blocks] == [(old.id, 1)]
    assert told == [(new.id, "a"), (new.id, "b"), (old.id, "changed")]


async def test_a_watch_goes_on_where_another_ended(memory: Any, stranger: Any) -> None:
    with stranger:
        block = await make(memory, "a")
        first = Watching(memory)
        await first.next()
        await set_to(memory, block.id, value="b")
        assert await first.written() == (block.id, "b")
        first.close()
        for value in "cd":
            await set_to(memory, block.id, value=value)
        again = Watching(memory, position=first.position)
        present = (await again.next()).present
        told = [await again.written() for _ in range(2)]
        again.close()

    assert [each.version for each in present.blocks] == [4]
    assert told == [(block.id, "c"), (block.id, "d")]


async def test_a_watch_of_an_agent_tells_its_blocks_alone(memory: Any) -> None:
    agent_id, other = await memory.agent("notes"), await memory.agent("notes")
    loose = await make(memory, "loose", label="loose")
    watching = Watching(memory, agent_id=agent_id)
    present = (await watching.next()).present
    await memory.edit(other, "notes", append=context_service_pb2.AppendEdit(content="not this"))
    await memory.edit(agent_id, "notes", append=context_service_pb2.AppendEdit(content="this"))
    assert (await watching.written())[1] == "notes\nthis"

    attach = context_service_pb2.AttachBlockRequest(agent_id=agent_id, block_id=loose.id)
    await memory.contexts.AttachBlock(attach, timeout=10)
    assert await watching.written() == (loose.id, "loose")
    await set_to(memory, loose.id, value="loose 2")
    assert await watching.written() == (loose.id, "loose 2")
    detach = context_service_pb2.DetachBlockRequest(agent_id=agent_id, block_id=loose.id)
    await memory.contexts.DetachBlock(detach, timeout=10)
    gone = await watching.next()
    watching.close()

    assert len(present.blocks) == 1
    assert gone.gone.block_id == loose.id


async def test_a_watch_of_an_agent_tells_of_deleted_blocks(memory: Any) -> None:
    agent_id = await memory.agent("notes")
    watching = Watching(memory, agent_id=agent_id)
    block_id = (await watching.next()).present.blocks[0].block_id
    await memory.blocks.DeleteBlock(block_service_pb2.DeleteBlockRequest(block_id=block_id), timeout=10)
    gone = await watching.next()
    watching.close()

    assert gone.gone.block_id == block_id


async def test_a_watch_tells_nothing_of_others(memory: Any, stranger: Any) -> None:
    with stranger:
        watching = Watching(memory)
        assert (await watching.next()).present == pb.BlocksPresent()
        with memory.actor(BOB):
            await make(memory, "of Bob")
        mine = await make(memory, "mine")
        assert await watching.written() == (mine.id, "mine")
        watching.close()


@pytest.mark.parametrize(
    "position", ["x", "1", "1/2", "9999999999999999999/0/", "99999999999999999999/0/", "-1/0/", "1/0/a/b"]
)
async def test_a_position_of_no_stream_is_refused(memory: Any, position: str) -> None:
    watching = Watching(memory, position=position)
    with pytest.raises(CursorNotFound):
        await watching.next()
