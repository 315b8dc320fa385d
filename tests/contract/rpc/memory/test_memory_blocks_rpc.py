"""BlockService."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.common.v1 import sort_order_pb2
from letta.memory.v1 import block_pb2, context_service_pb2
from letta.memory.v1 import block_service_pb2 as pb
from letta_common.errors import (
    AgentNotFound,
    BlockLabelTaken,
    BlockLimitExceeded,
    BlockNotFound,
    CursorNotFound,
    InvalidArgument,
    StaleEtag,
    ValidationFailed,
)


async def make(memory: Any, label: str = "note", value: str = "v", **more: Any) -> block_pb2.Block:
    block = block_pb2.Block(label=label, value=value, **more)
    answer = await memory.blocks.CreateBlock(pb.CreateBlockRequest(block=block), timeout=10)
    made: block_pb2.Block = answer.block
    return made


async def get(memory: Any, block_id: str) -> block_pb2.Block:
    found: block_pb2.Block = (await memory.blocks.GetBlock(pb.GetBlockRequest(block_id=block_id), timeout=10)).block
    return found


async def change(memory: Any, block_id: str, *paths: str, **values: Any) -> block_pb2.Block:
    request = pb.UpdateBlockRequest(
        block_id=block_id, block=block_pb2.Block(**values), update_mask=FieldMask(paths=paths)
    )
    changed: block_pb2.Block = (await memory.blocks.UpdateBlock(request, timeout=10)).block
    return changed


async def test_create_fills_in_what_was_left_out(memory: Any) -> None:
    made = await make(memory, metadata='{"a": 9007199254740993}', tags=["x", "y"])
    assert made == await get(memory, made.id)
    assert (made.limit, made.read_only, made.is_template, made.etag) == (100_000, False, False, "1")
    assert (made.metadata, list(made.tags)) == ('{"a": 9007199254740993}', ["x", "y"])
    assert made.HasField("preserve_on_migration")
    assert not made.HasField("description")
    assert "user-ann" == made.created_by_id == made.last_updated_by_id


async def test_create_twice_with_one_request_id(memory: Any) -> None:
    request = pb.CreateBlockRequest(block=block_pb2.Block(label="a", value="b"), request_id=str(uuid4()))
    first = await memory.blocks.CreateBlock(request, timeout=10)
    assert first == await memory.blocks.CreateBlock(request, timeout=10)


async def test_create_needs_a_label(memory: Any) -> None:
    with pytest.raises(InvalidArgument):
        await make(memory, label="")
    with pytest.raises(ValidationFailed):
        await make(memory, limit=-1)


async def test_a_value_above_its_limit_is_refused(memory: Any, stranger: Any) -> None:
    with stranger:
        for value, limit in (("x" * 100_001, 0), ("x" * 6, 5), ("\N{GRINNING FACE}" * 6, 5)):
            with pytest.raises(BlockLimitExceeded):
                await make(memory, value=value, limit=limit)
        assert not (await memory.blocks.ListBlocks(pb.ListBlocksRequest(), timeout=10)).blocks
        made = await make(memory, value="\N{GRINNING FACE}" * 5, limit=5)
        for paths, values in (
            (("value",), {"value": "x" * 6}),
            (("limit",), {"limit": 4}),
            (("value", "limit"), {"value": "x" * 8, "limit": 7}),
        ):
            with pytest.raises(BlockLimitExceeded):
                await change(memory, made.id, *paths, **values)
        changed = await change(memory, made.id, "value", "limit", value="x" * 8, limit=8)
        assert (changed.value, changed.limit, changed.etag) == ("x" * 8, 8, "2")


async def test_metadata_has_a_size(memory: Any) -> None:
    fitting = '{"a": "' + "x" * 65_000 + '"}'
    assert (await make(memory, metadata=fitting)).metadata == fitting
    with pytest.raises(ValidationFailed):
        await make(memory, metadata='{"a": "' + "x" * 66_000 + '"}')


async def test_a_mask_changes_and_clears(memory: Any) -> None:
    made = await make(memory, description="d", hidden=False, tags=["x"])
    changed = await change(memory, made.id, "value", "description", "tags", value="new", limit=5)
    assert (changed.value, list(changed.tags), changed.limit) == ("new", [], 100_000)
    assert not changed.HasField("description")
    assert changed.HasField("hidden")
    assert changed.etag == "2"
    assert changed == await get(memory, made.id)


async def test_an_update_skips_outputs_and_refuses_them_and_unknown_paths_by_name(memory: Any) -> None:
    made = await make(memory)
    changed = await change(memory, made.id, id="block-x", created_by_id="user-x", value="w")
    assert (made.id, "user-ann", "w") == (changed.id, changed.created_by_id, changed.value)
    for path in ("nope", "id", "created_by_id"):
        with pytest.raises(InvalidArgument, match=path):
            await change(memory, made.id, path, value="x")
    with pytest.raises(InvalidArgument):
        await change(memory, made.id, "label")


async def test_a_stale_etag_is_refused(memory: Any) -> None:
    made = await make(memory)
    await change(memory, made.id, "value", value="a", etag=made.etag)
    with pytest.raises(StaleEtag):
        await change(memory, made.id, "value", value="b", etag=made.etag)
    assert (await get(memory, made.id)).value == "a"


async def test_delete_detaches(memory: Any) -> None:
    agent = await memory.agent("human")
    block_id = (await memory.begin(agent))[1].blocks[0].id
    await memory.blocks.DeleteBlock(pb.DeleteBlockRequest(block_id=block_id), timeout=10)
    assert await memory.values(agent) == {}
    with pytest.raises(BlockNotFound) as caught:
        await memory.blocks.DeleteBlock(pb.DeleteBlockRequest(block_id=block_id), timeout=10)
    assert f"Block with id '{block_id}' not found" == caught.value.message


async def test_another_tenant_sees_nothing(memory: Any) -> None:
    made = await make(memory)
    agent = await memory.agent("human")
    with memory.actor(memory.BOB):
        for call in (
            get(memory, made.id),
            change(memory, made.id, "value", value="x"),
            memory.blocks.DeleteBlock(pb.DeleteBlockRequest(block_id=made.id), timeout=10),
            memory.blocks.ListBlockAgentIds(pb.ListBlockAgentIdsRequest(block_id=made.id), timeout=10),
        ):
            with pytest.raises(BlockNotFound):
                await call
        for call in (
            memory.blocks.ListAgentBlocks(pb.ListAgentBlocksRequest(agent_id=agent), timeout=10),
            memory.blocks.GetAgentBlock(pb.GetAgentBlockRequest(agent_id=agent, block_label="human"), timeout=10),
        ):
            with pytest.raises(AgentNotFound):
                await call


async def test_lists_page_in_both_directions(memory: Any, stranger: Any) -> None:
    with stranger:
        ids = [(await make(memory, label=f"l{number}")).id for number in range(5)]

        async def page(**fields: Any) -> list[str]:
            answer = await memory.blocks.ListBlocks(pb.ListBlocksRequest(**fields), timeout=10)
            return [block.id for block in answer.blocks]

        assert ids == await page()
        assert ids[::-1] == await page(order=sort_order_pb2.SORT_ORDER_DESC)
        assert ids[:2] == await page(limit=2)
        assert ids[2:4] == await page(limit=2, after=ids[1])
        assert ids[1:3] == await page(limit=2, before=ids[3])
        assert await page(after=ids[4]) == []
        await memory.blocks.DeleteBlock(pb.DeleteBlockRequest(block_id=ids[1]), timeout=10)
        assert ids[2:4] == await page(limit=2, after=ids[1])
        with pytest.raises(CursorNotFound):
            await page(after="block-00000000-0000-4000-8000-000000000000")


async def test_a_deleted_cursor_with_any_kind_of_id_works(memory: Any, stranger: Any) -> None:
    with stranger:
        request = pb.CreateBlockRequest(block=block_pb2.Block(label="a", value="b"), request_id=str(uuid4()))
        first = (await memory.blocks.CreateBlock(request, timeout=10)).block.id
        second = (await make(memory)).id
        await memory.blocks.DeleteBlock(pb.DeleteBlockRequest(block_id=first), timeout=10)
        answer = await memory.blocks.ListBlocks(pb.ListBlocksRequest(after=first), timeout=10)
        assert [second] == [block.id for block in answer.blocks]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"label": "a"}, "13"),
        ({"tags": ["x", "y"]}, "12"),
        ({"tags": ["x", "y"], "match_all_tags": True}, "2"),
        ({"templates_only": True}, "3"),
        ({"name": "tea"}, "3"),
        ({"project_id": "p"}, "1"),
        ({"label_search": "B"}, "2"),
        ({"value_search": "100%"}, "3"),
        ({"description_search": "WHO"}, "1"),
        ({"connected_to_agents_count_gt": 0}, "1"),
        ({"connected_to_agents_count_lt": 1}, "23"),
        ({"connected_to_agents_count_eq": [1, 2]}, "1"),
    ],
)
async def test_filters(memory: Any, stranger: Any, fields: dict[str, Any], expected: str) -> None:
    with stranger:
        one = await make(memory, label="a", value="1", tags=["x"], project_id="p", description="who")
        await make(memory, label="b", value="2", tags=["x", "y"])
        await make(memory, label="a", value="3", is_template=True, template_name="tea")
        await change(memory, (await make(memory, label="a", value="hidden")).id, "hidden", hidden=True)
        third = await memory.blocks.ListBlocks(pb.ListBlocksRequest(name="tea"), timeout=10)
        await change(memory, third.blocks[0].id, "value", value="3 is 100% here")
        agent = await memory.agent()
        await memory.contexts.AttachBlock(
            context_service_pb2.AttachBlockRequest(agent_id=agent, block_id=one.id), timeout=10
        )
        answer = await memory.blocks.ListBlocks(pb.ListBlocksRequest(**fields), timeout=10)
        assert expected == "".join(block.value[0] for block in answer.blocks)
        if not any("search" in name or "connected" in name for name in fields):
            counted = await memory.blocks.CountBlocks(pb.CountBlocksRequest(**fields), timeout=10)
            assert len(expected) == counted.count


async def test_the_blocks_of_an_agent(memory: Any) -> None:
    agent = await memory.agent("human", "persona")
    listed = await memory.blocks.ListAgentBlocks(pb.ListAgentBlocksRequest(agent_id=agent), timeout=10)
    assert {"human", "persona"} == {block.label for block in listed.blocks}
    assert (
        list(
            (
                await memory.blocks.ListAgentBlocks(
                    pb.ListAgentBlocksRequest(agent_id=agent, after=listed.blocks[1].id), timeout=10
                )
            ).blocks
        )
        == []
    )
    request = pb.UpdateAgentBlockRequest(
        agent_id=agent,
        block_label="human",
        block=block_pb2.Block(value="Name: Robert."),
        update_mask=FieldMask(paths=["value"]),
    )
    changed = await memory.blocks.UpdateAgentBlock(request, timeout=10)
    got = await memory.blocks.GetAgentBlock(pb.GetAgentBlockRequest(agent_id=agent, block_label="human"), timeout=10)
    assert "Name: Robert." == changed.block.value == got.block.value
    holders = await memory.blocks.ListBlockAgentIds(pb.ListBlockAgentIdsRequest(block_id=got.block.id), timeout=10)
    assert [agent] == list(holders.agent_ids)


async def test_an_unknown_label_of_an_agent(memory: Any) -> None:
    agent = await memory.agent()
    with pytest.raises(BlockNotFound) as caught:
        await memory.blocks.GetAgentBlock(pb.GetAgentBlockRequest(agent_id=agent, block_label="nolabel"), timeout=10)
    assert f"No block with label 'nolabel' found for agent '{agent}'" == caught.value.message
    assert (
        list((await memory.blocks.ListAgentBlocks(pb.ListAgentBlocksRequest(agent_id=agent), timeout=10)).blocks) == []
    )


async def test_a_new_label_must_be_free_in_every_agent(memory: Any) -> None:
    agent = await memory.agent("human", "persona")
    human = next(block for block in (await memory.begin(agent))[1].blocks if block.label == "human")
    with pytest.raises(BlockLabelTaken):
        await change(memory, human.id, "label", label="persona")
    await change(memory, human.id, "label", label="friend")
    assert await memory.values(agent) == {"friend": "human", "persona": "persona"}
    edited = await memory.edit(agent, "friend", append=context_service_pb2.AppendEdit(content="x"))
    assert human.id == edited.block.id
