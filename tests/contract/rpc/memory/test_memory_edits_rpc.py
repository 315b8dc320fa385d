"""ContextService.EditBlock: what memory tools do to blocks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta.memory.v1 import block_pb2, block_service_pb2
from letta.memory.v1 import context_service_pb2 as pb
from letta_common.errors import (
    BlockLabelTaken,
    BlockLimitExceeded,
    BlockNotFound,
    BlockReadOnly,
    EditLineOutOfRange,
    EditNoMatch,
    EditNotUnique,
    IdempotencyConflict,
)


@pytest.fixture
async def agent(memory: Any) -> str:
    agent_id: str = await memory.agent("notes", "other")
    await memory.edit(agent_id, "notes", rethink=pb.RethinkEdit(value="one\ntwo\none"))
    return agent_id


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"append": pb.AppendEdit(content="three")}, "one\ntwo\none\nthree"),
        ({"replace": pb.ReplaceEdit(old_text="two", new_text="2")}, "one\n2\none"),
        ({"replace": pb.ReplaceEdit(old_text="one", new_text="1", all_occurrences=True)}, "1\ntwo\n1"),
        ({"replace": pb.ReplaceEdit(old_text="one\ntwo", new_text="")}, "\none"),
        ({"insert": pb.InsertEdit(text="zero", line=0)}, "zero\none\ntwo\none"),
        ({"insert": pb.InsertEdit(text="1.5\n1.6", line=1)}, "one\n1.5\n1.6\ntwo\none"),
        ({"insert": pb.InsertEdit(text="end", line=3)}, "one\ntwo\none\nend"),
        ({"insert": pb.InsertEdit(text="end", line=-1)}, "one\ntwo\none\nend"),
        ({"rethink": pb.RethinkEdit(value="100 % new")}, "100 % new"),
        ({"rethink": pb.RethinkEdit(value="")}, ""),
        ({"create": pb.CreateEdit(value="over", description="d")}, "over"),
    ],
)
async def test_edits_that_fit(memory: Any, agent: str, kind: dict[str, Any], expected: str) -> None:
    answer = await memory.edit(agent, "notes", **kind)
    assert (expected, 3, False) == (answer.block.value, answer.block.version, answer.repeated_edit)
    assert expected == (await memory.values(agent))["notes"]


async def test_the_first_line_of_an_empty_block(memory: Any, agent: str) -> None:
    for kind in ({"append": pb.AppendEdit(content="x")}, {"insert": pb.InsertEdit(text="x", line=-1)}):
        await memory.edit(agent, "notes", rethink=pb.RethinkEdit(value=""))
        assert (await memory.edit(agent, "notes", **kind)).block.value == "x"


@pytest.mark.parametrize(
    ("kind", "error", "lines"),
    [
        ({"replace": pb.ReplaceEdit(old_text="three", new_text="3")}, EditNoMatch, None),
        ({"replace": pb.ReplaceEdit(old_text="three", new_text="3", all_occurrences=True)}, EditNoMatch, None),
        ({"replace": pb.ReplaceEdit(old_text="one", new_text="1")}, EditNotUnique, "1, 3"),
        ({"insert": pb.InsertEdit(text="x", line=4)}, EditLineOutOfRange, "3"),
        ({"rethink": pb.RethinkEdit(value="x" * 100_001)}, BlockLimitExceeded, None),
        ({"create": pb.CreateEdit(value="x" * 100_001)}, BlockLimitExceeded, None),
        ({"rename": pb.RenameEdit(label="other")}, BlockLabelTaken, None),
    ],
)
async def test_edits_that_do_not_fit(
    memory: Any, agent: str, kind: dict[str, Any], error: type[Exception], lines: str | None
) -> None:
    with pytest.raises(error) as caught:
        await memory.edit(agent, "notes", **kind)
    assert lines == caught.value.metadata.get("lines")  # type: ignore[attr-defined]
    assert await memory.values(agent) == {"notes": "one\ntwo\none", "other": "other"}


async def test_an_unknown_label_names_the_known_ones(memory: Any, agent: str) -> None:
    with pytest.raises(BlockNotFound) as caught:
        await memory.edit(agent, "nope", append=pb.AppendEdit(content="x"))
    assert caught.value.metadata["labels"] == "notes, other"


async def test_a_block_too_long_is_not_made(memory: Any, agent: str) -> None:
    with pytest.raises(BlockLimitExceeded):
        await memory.edit(agent, "big", create=pb.CreateEdit(value="x" * 100_001))
    assert {"notes", "other"} == set(await memory.values(agent))


async def test_read_only_blocks_refuse_every_edit(memory: Any) -> None:
    agent = await memory.agent()
    made = await memory.blocks.CreateBlock(
        block_service_pb2.CreateBlockRequest(block=block_pb2.Block(label="policy", value="p", read_only=True)),
        timeout=10,
    )
    await memory.contexts.AttachBlock(pb.AttachBlockRequest(agent_id=agent, block_id=made.block.id), timeout=10)
    for kind in (
        {"append": pb.AppendEdit(content="x")},
        {"create": pb.CreateEdit(value="x")},
        {"delete": pb.DeleteEdit()},
        {"rename": pb.RenameEdit(label="x")},
    ):
        with pytest.raises(BlockReadOnly):
            await memory.edit(agent, "policy", **kind)


async def test_create_rename_and_delete(memory: Any, agent: str) -> None:
    made = await memory.edit(agent, "new", create=pb.CreateEdit(value="v", description="d"))
    assert (made.block.label, made.block.value, made.block.description, made.block.version) == ("new", "v", "d", 1)
    renamed = await memory.edit(agent, "new", rename=pb.RenameEdit(label="newer", description="e"))
    assert (made.block.id, "newer", "e") == (renamed.block.id, renamed.block.label, renamed.block.description)
    await memory.edit(agent, "newer", delete=pb.DeleteEdit())
    assert {"notes", "other"} == set(await memory.values(agent))
    request = block_service_pb2.GetBlockRequest(block_id=made.block.id)
    assert (await memory.blocks.GetBlock(request, timeout=10)).block.value == "v"


@pytest.mark.parametrize(
    "kind",
    [
        {"append": pb.AppendEdit(content="x")},
        {"create": pb.CreateEdit(value="x")},
        {"delete": pb.DeleteEdit()},
        {"rename": pb.RenameEdit(label="z")},
    ],
)
async def test_a_repeated_edit_answers_as_before(memory: Any, agent: str, kind: dict[str, Any]) -> None:
    key = f"{agent}:{next(iter(kind))}"
    first = await memory.edit(agent, "notes", key=key, **kind)
    if "delete" not in kind:
        label = first.block.label
        await memory.edit(agent, label, append=pb.AppendEdit(content="later"))
    again = await memory.edit(agent, "notes", key=key, **kind)

    assert (first.repeated_edit, again.repeated_edit) == (False, True)
    assert (first.block.value, first.block.label, first.block.version) == (
        again.block.value,
        again.block.label,
        again.block.version,
    )


async def test_a_key_is_for_one_edit(memory: Any, agent: str) -> None:
    await memory.edit(agent, "notes", key=f"{agent}:k", append=pb.AppendEdit(content="x"))
    with pytest.raises(IdempotencyConflict):
        await memory.edit(agent, "notes", key=f"{agent}:k", append=pb.AppendEdit(content="y"))


async def test_concurrent_edits_are_all_kept(memory: Any, agent: str) -> None:
    await asyncio.gather(
        *(memory.edit(agent, "notes", append=pb.AppendEdit(content=f"line {number}")) for number in range(10))
    )
    value = (await memory.values(agent))["notes"]
    assert {f"line {number}" for number in range(10)} <= set(value.split("\n"))


async def test_concurrent_repeats_edit_once(memory: Any, agent: str) -> None:
    edits = [memory.edit(agent, "notes", key=f"{agent}:same", append=pb.AppendEdit(content="once")) for _ in range(6)]
    answers = await asyncio.gather(*edits)
    assert sorted(answer.repeated_edit for answer in answers) == [False] + [True] * 5
    assert (await memory.values(agent))["notes"] == "one\ntwo\none\nonce"
