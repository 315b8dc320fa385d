"""IdentityService."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.memory.v1 import block_pb2, block_service_pb2, context_service_pb2
from letta.memory.v1 import identity_service_pb2 as pb
from letta.memory.v1.identity_pb2 import Identity, IdentityProperty
from letta_common.errors import (
    AgentNotFound,
    AlreadyExists,
    BlockNotFound,
    CursorNotFound,
    IdempotencyConflict,
    IdentityNotFound,
    InvalidArgument,
)
from letta_common.values.ids import new_id

USER, ORG = "IDENTITY_TYPE_USER", "IDENTITY_TYPE_ORG"


def prop(key: str, value: str = '"x"') -> IdentityProperty:
    return IdentityProperty(key=key, value=value, type="IDENTITY_PROPERTY_TYPE_STRING")


def named(key: str, name: str = "Ann", **more: Any) -> Identity:
    return Identity(identifier_key=key, name=name, **{"identity_type": USER, **more})


async def make(memory: Any, key: str = "", **more: Any) -> Identity:
    beside = {name: more.pop(name) for name in ("properties", "agent_ids", "block_ids", "request_id") if name in more}
    request = pb.CreateIdentityRequest(identity=named(key or new_id("key"), **more), **beside)
    return (await memory.identities.CreateIdentity(request, timeout=10)).identity


async def upsert(memory: Any, key: str, name: str = "Ann", **beside: Any) -> Identity:
    request = pb.UpsertIdentityRequest(identity=named(key, name), **beside)
    return (await memory.identities.UpsertIdentity(request, timeout=10)).identity


async def update(memory: Any, identity_id: str, mask: str = "", **more: Any) -> Identity:
    beside = {name: more.pop(name) for name in ("properties", "agent_ids", "block_ids") if name in more}
    paths = FieldMask(paths=[mask] if mask else [])
    request = pb.UpdateIdentityRequest(identity_id=identity_id, identity=Identity(**more), update_mask=paths, **beside)
    return (await memory.identities.UpdateIdentity(request, timeout=10)).identity


async def get(memory: Any, identity_id: str) -> Identity:
    return (await memory.identities.GetIdentity(pb.GetIdentityRequest(identity_id=identity_id), timeout=10)).identity


async def delete(memory: Any, identity_id: str) -> None:
    await memory.identities.DeleteIdentity(pb.DeleteIdentityRequest(identity_id=identity_id), timeout=10)


async def listed(memory: Any, **fields: Any) -> list[str]:
    answer = await memory.identities.ListIdentities(pb.ListIdentitiesRequest(**fields), timeout=10)
    return [found.id for found in answer.identities]


async def block(memory: Any, label: str = "notes") -> str:
    request = block_service_pb2.CreateBlockRequest(block=block_pb2.Block(label=label, value="v"))
    return (await memory.blocks.CreateBlock(request, timeout=10)).block.id


async def agents_of(memory: Any, *keys: str, identity_id: str = "") -> list[str]:
    request = pb.ListIdentityAgentIdsRequest(identity_id=identity_id or None, identifier_keys=keys)
    return list((await memory.identities.ListIdentityAgentIds(request, timeout=10)).agent_ids)


async def test_an_identity_is_kept_with_what_belongs_to_it(memory: Any) -> None:
    agent, held = await memory.agent("human"), await block(memory)
    made = await make(memory, project_id="p", properties=[prop("age", "5")], agent_ids=[agent, agent], block_ids=[held])

    assert made == await get(memory, made.id)
    assert (made.name, made.identity_type, made.project_id, made.organization_id) == ("Ann", 2, "p", "org-a")
    assert (list(made.agent_ids), list(made.block_ids)) == ([agent], [held])
    assert list(made.properties) == [prop("age", "5")]


async def test_a_key_is_taken_once_in_each_project(memory: Any) -> None:
    key = new_id("key")
    made = await make(memory, key)

    with pytest.raises(AlreadyExists):
        await make(memory, key)
    other = await make(memory, key, project_id="p")
    with pytest.raises(AlreadyExists):
        await make(memory, key, project_id="p")
    with memory.actor(memory.BOB):
        theirs = await make(memory, key)
    assert len({made.id, other.id, theirs.id}) == 3
    with pytest.raises(AlreadyExists):
        await update(memory, (await make(memory)).id, identifier_key=key)


@pytest.mark.parametrize("lacking", ["identifier_key", "name", "identity_type"])
async def test_an_identity_without_key_name_or_type_is_refused(memory: Any, lacking: str) -> None:
    given = named("k")
    given.ClearField(lacking)

    with pytest.raises(InvalidArgument, match=lacking):
        await memory.identities.CreateIdentity(pb.CreateIdentityRequest(identity=given), timeout=10)
    made = await make(memory)
    left = await update(memory, made.id, lacking)
    left.updated_at.CopyFrom(made.updated_at)
    assert left == made


async def test_a_request_key_stands_for_one_identity(memory: Any) -> None:
    key, request_id = new_id("key"), new_id("request")
    made = await make(memory, key, request_id=request_id)

    assert await make(memory, key, request_id=request_id) == made
    with pytest.raises(IdempotencyConflict):
        await make(memory, key, name="Other", request_id=request_id)


@pytest.mark.parametrize(
    ("name", "kind", "error"), [("agent_ids", "agent", AgentNotFound), ("block_ids", "block", BlockNotFound)]
)
async def test_what_is_not_there_belongs_to_nobody_and_nothing_is_written(
    memory: Any, name: str, kind: str, error: type[Exception]
) -> None:
    with memory.actor(memory.BOB):
        theirs = await memory.agent("human") if kind == "agent" else await block(memory)
    key = new_id("key")
    for ids in ([new_id(kind)], [theirs]):
        with pytest.raises(error):
            await make(memory, key, **{name: ids})
        with pytest.raises(error):
            await upsert(memory, key, **{name: ids})
    assert await listed(memory, identifier_key=key) == []
    made = await make(memory, key)
    with pytest.raises(error):
        await update(memory, made.id, name="Bea", **{name: [theirs]})
    assert await get(memory, made.id) == made


async def test_an_upsert_makes_or_changes_what_has_the_key(memory: Any) -> None:
    key, one, two = new_id("key"), await memory.agent("human"), await memory.agent("human")
    made = await upsert(memory, key, properties=[prop("a"), prop("b")], agent_ids=[one])
    renamed = await upsert(memory, key, "Bea")
    replaced = await upsert(memory, key, "Bea", properties=[prop("c")], agent_ids=[two])

    assert made.id == renamed.id == replaced.id
    assert (renamed.name, list(renamed.agent_ids), list(renamed.properties)) == ("Bea", [one], [prop("a"), prop("b")])
    assert (list(replaced.agent_ids), list(replaced.properties)) == ([two], [prop("c")])


async def test_many_upserts_at_once_make_one(memory: Any) -> None:
    key, agents = new_id("key"), [await memory.agent("human") for _ in range(3)]
    made = await asyncio.gather(*(upsert(memory, key, f"n{n}", agent_ids=[agents[n % 3]]) for n in range(9)))

    assert {each.id for each in made} == {*await listed(memory, identifier_key=key)}
    assert len(await agents_of(memory, key)) == 1


async def test_an_update_adds_and_changes_what_the_mask_names(memory: Any) -> None:
    one, two, held = await memory.agent("human"), await memory.agent("human"), await block(memory)
    made = await make(memory, properties=[prop("a"), prop("b")], agent_ids=[one])
    changed = await update(
        memory, made.id, identity_type=ORG, properties=[prop("b", "2")], agent_ids=[two], block_ids=[held]
    )

    assert (changed.name, changed.identity_type) == ("Ann", 1)
    assert list(changed.properties) == [prop("a"), prop("b", "2")]
    assert (set(changed.agent_ids), list(changed.block_ids)) == ({one, two}, [held])
    assert await get(memory, made.id) == changed
    with pytest.raises(IdentityNotFound):
        await update(memory, new_id("identity"), name="x")


async def test_many_updates_at_once_lose_no_property(memory: Any) -> None:
    made = await make(memory)
    await asyncio.gather(*(update(memory, made.id, properties=[prop(f"k{n}")]) for n in range(8)))

    assert {each.key for each in (await get(memory, made.id)).properties} == {f"k{n}" for n in range(8)}


async def test_properties_are_set_as_a_whole_and_bounded(memory: Any) -> None:
    made = await make(memory, properties=[prop("a"), prop("b")])

    async def put(*properties: IdentityProperty) -> Identity:
        request = pb.SetIdentityPropertiesRequest(identity_id=made.id, properties=properties)
        return (await memory.identities.SetIdentityProperties(request, timeout=10)).identity

    assert list((await put(prop("c"))).properties) == [prop("c")]
    full = await put(*(prop(f"k{n}") for n in range(100)))
    with pytest.raises(InvalidArgument, match="100 properties"):
        await update(memory, made.id, properties=[prop("one more")])
    with pytest.raises(InvalidArgument, match="bytes"):
        await put(*(prop(f"k{n}", f'"{"x" * 60_000}"') for n in range(17)))
    assert await get(memory, made.id) == full
    assert list((await put()).properties) == []


async def test_lists_page_filter_and_count(memory: Any, stranger: Any) -> None:
    with stranger:
        ids = [(await make(memory, f"k{n}", name=f"Name {n}", project_id="p" * (n % 2))).id for n in range(5)]
        other = (await make(memory, "org", name="100%", identity_type=ORG)).id

        assert await listed(memory) == [other, *ids[::-1]]
        assert await listed(memory, limit=2, order="SORT_ORDER_ASC", after=ids[1]) == ids[2:4]
        assert await listed(memory, name="nAME") == ids[::-1]
        assert await listed(memory, name="%") == [other]
        assert await listed(memory, identifier_key="k1") == [ids[1]]
        assert await listed(memory, project_id="p") == [ids[3], ids[1]]
        assert await listed(memory, identity_type=ORG) == [other]
        answer = await memory.identities.CountIdentities(pb.CountIdentitiesRequest(), timeout=10)
        assert answer.count == 6
        await delete(memory, ids[1])
        assert await listed(memory, order="SORT_ORDER_ASC", after=ids[1]) == [*ids[2:], other]
        with pytest.raises(CursorNotFound):
            await listed(memory, after="identity-none")


async def test_agents_and_blocks_are_attached_and_detached(memory: Any) -> None:
    made, agent, held = await make(memory), await memory.agent("human"), await block(memory)
    for _ in range(2):
        await memory.identities.AttachIdentity(
            pb.AttachIdentityRequest(agent_id=agent, identity_id=made.id), timeout=10
        )
        request = pb.AttachBlockIdentityRequest(block_id=held, identity_id=made.id)
        assert (await memory.identities.AttachBlockIdentity(request, timeout=10)).block.id == held
    attached = await get(memory, made.id)
    for _ in range(2):
        await memory.identities.DetachIdentity(
            pb.DetachIdentityRequest(agent_id=agent, identity_id=made.id), timeout=10
        )
        away = pb.DetachBlockIdentityRequest(block_id=held, identity_id=made.id)
        assert (await memory.identities.DetachBlockIdentity(away, timeout=10)).block.id == held

    assert (list(attached.agent_ids), list(attached.block_ids)) == ([agent], [held])
    assert await get(memory, made.id) == made


@pytest.mark.parametrize("method", ["AttachIdentity", "DetachIdentity", "AttachBlockIdentity", "DetachBlockIdentity"])
async def test_nothing_is_attached_to_or_from_another_organization(memory: Any, method: str) -> None:
    mine, call = await make(memory), getattr(memory.identities, method)
    with memory.actor(memory.BOB):
        agent, held, theirs = await memory.agent("human"), await block(memory), await make(memory)
    side, foreign, error = (
        ("block_id", held, BlockNotFound) if "Block" in method else ("agent_id", agent, AgentNotFound)
    )
    own = await block(memory) if "Block" in method else await memory.agent("human")

    with pytest.raises(error):
        await call(getattr(pb, f"{method}Request")(identity_id=mine.id, **{side: foreign}), timeout=10)
    with pytest.raises(IdentityNotFound):
        await call(getattr(pb, f"{method}Request")(identity_id=theirs.id, **{side: own}), timeout=10)
    assert await get(memory, mine.id) == mine


async def test_what_belongs_to_an_identity_is_listed(memory: Any) -> None:
    one, two, three = [await memory.agent("human") for _ in range(3)]
    blocks = [await block(memory, label) for label in "abc"]
    first = await make(memory, agent_ids=[one, two], block_ids=blocks)
    second = await make(memory, agent_ids=[two, three], block_ids=blocks[:1])

    assert await agents_of(memory, identity_id=first.id) == sorted([one, two])
    assert await agents_of(memory, first.identifier_key, second.identifier_key, "none") == sorted([one, two, three])
    assert await agents_of(memory, second.identifier_key, identity_id=first.id) == [two]
    request = pb.ListIdentityBlocksRequest(identity_id=first.id, limit=2)
    answer = await memory.identities.ListIdentityBlocks(request, timeout=10)
    assert [found.id for found in answer.blocks] == blocks[:0:-1]

    async def of(**fields: Any) -> list[str]:
        found = await memory.blocks.ListBlocks(block_service_pb2.ListBlocksRequest(**fields), timeout=10)
        return [each.id for each in found.blocks]

    assert await of(identity_id=first.id) == blocks
    assert await of(identifier_keys=[second.identifier_key, "none"]) == blocks[:1]
    assert await of(identity_id=first.id, identifier_keys=[second.identifier_key]) == blocks[:1]
    with memory.actor(memory.BOB):
        assert await of(identity_id=first.id) == await of(identifier_keys=[first.identifier_key]) == []
        for unknown in (agents_of(memory, identity_id=first.id), get(memory, first.id), delete(memory, first.id)):
            with pytest.raises(IdentityNotFound):
                await unknown
        with pytest.raises(IdentityNotFound):
            await memory.identities.ListIdentityBlocks(request, timeout=10)


async def test_the_identities_of_an_agent_are_set_as_a_whole_or_not_at_all(memory: Any) -> None:
    agent, one, two = await memory.agent("human"), await make(memory), await make(memory)

    async def put(*ids: str) -> list[str]:
        request = pb.SetAgentIdentitiesRequest(agent_id=agent, identity_ids=ids)
        await memory.identities.SetAgentIdentities(request, timeout=10)
        ask = context_service_pb2.ListAgentMemoriesRequest(agent_ids=[agent], with_identities=True)
        [found] = (await memory.contexts.ListAgentMemories(ask, timeout=10)).memories
        assert [each.agent_ids for each in found.identities] == [[]] * len(found.identities)
        return [each.id for each in found.identities]

    assert await put(two.id, one.id) == [one.id, two.id]
    with pytest.raises(IdentityNotFound):
        await put(new_id("identity"))
    assert await put(two.id) == [two.id]
    await delete(memory, two.id)
    assert await put() == []
    request = pb.SetAgentIdentitiesRequest(agent_id=new_id("agent"), identity_ids=[one.id])
    with pytest.raises(AgentNotFound):
        await memory.identities.SetAgentIdentities(request, timeout=10)


async def test_links_go_with_what_they_link(memory: Any) -> None:
    agent, held = await memory.agent("human"), await block(memory)
    made = await make(memory, agent_ids=[agent], block_ids=[held])
    await memory.contexts.DeprovisionAgent(context_service_pb2.DeprovisionAgentRequest(agent_id=agent), timeout=10)
    await memory.blocks.DeleteBlock(block_service_pb2.DeleteBlockRequest(block_id=held), timeout=10)

    left = await get(memory, made.id)

    assert (list(left.agent_ids), list(left.block_ids)) == ([], [])
