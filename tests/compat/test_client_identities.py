"""Identities through the unmodified SDKs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from letta_client import ConflictError, Letta, NotFoundError, UnprocessableEntityError
from tests.servers import RunningServer
from tests.support.typescript import Refused, typescript_client

PATH = "/v1/identities/"
NOWHERE = "identity-00000000-0000-4000-8000-000000000000"
Asking = Callable[..., Any]


@pytest.fixture
def ask(client: Letta) -> Asking:
    """Return what asks for a path below that of identities; this SDK has no methods of its own for them."""

    def asked(verb: str, path: str = "", body: Any = None) -> Any:
        given = {} if body is None else {"body": body}
        return getattr(client, verb)(f"{PATH}{path}", cast_to=object, **given)

    return asked


@pytest.fixture
def ann(ask: Asking) -> Iterator[Any]:
    made = ask("post", "", {"identifier_key": "user_ann", "name": "Ann", "identity_type": "user"})
    yield made
    ask("delete", made["id"])


@pytest.fixture
def agents(client: Letta) -> Iterator[list[str]]:
    made = [client.agents.create(model="builtin/echo", name=f"owned {n}", memory_blocks=[]).id for n in range(5)]
    yield made
    for agent_id in made:
        client.agents.delete(agent_id)


def test_an_identity_lives_its_life(ask: Asking) -> None:
    properties = [{"key": "plan", "value": "pro", "type": "string"}, {"key": "age", "value": 5, "type": "number"}]
    body = {"identifier_key": "k", "name": "Ann", "identity_type": "user", "properties": properties}
    made = ask("post", "", body)
    assert made == body | {
        "id": made["id"],
        "project_id": None,
        "agent_ids": [],
        "block_ids": [],
        "organization_id": made["organization_id"],
    }
    assert ask("get", made["id"]) == made
    assert ask("get", "count") == 1
    more = [{"key": "data", "value": {"a": [1]}, "type": "json"}, {"key": "age", "value": 6, "type": "number"}]
    changed = ask("patch", made["id"], {"name": "Bea", "identity_type": None, "properties": more})
    assert changed == made | {"name": "Bea", "properties": [properties[0], more[1], more[0]]}
    put = ask("put", "", {"identifier_key": "k", "name": "Cy", "identity_type": "org", "properties": more})
    assert put == made | {"name": "Cy", "identity_type": "org", "properties": more}
    flag = [{"key": "on", "value": True, "type": "boolean"}]
    assert ask("put", f"{made['id']}/properties", flag) == put | {"properties": flag}
    assert ask("delete", made["id"]) is None
    with pytest.raises(NotFoundError):
        ask("get", made["id"])


def test_what_is_refused_is_told(ask: Asking, ann: Any) -> None:
    with pytest.raises(ConflictError):
        ask("post", "", {"identifier_key": "user_ann", "name": "Ann", "identity_type": "user"})
    for lacking in ("identifier_key", "name", "identity_type"):
        body = {"identifier_key": "k", "name": "n", "identity_type": "user"}
        del body[lacking]
        with pytest.raises(UnprocessableEntityError, match=lacking):
            ask("post", "", body)
    with pytest.raises(UnprocessableEntityError):
        ask("post", "", {"identifier_key": "k", "name": "n", "identity_type": "robot"})
    for path in (NOWHERE, f"{NOWHERE}/agents", f"{NOWHERE}/blocks"):
        with pytest.raises(NotFoundError):
            ask("get", path)


def test_identities_are_listed_and_paged(ask: Asking) -> None:
    kinds = ("user", "org", "other")
    made = [
        ask("post", "", {"identifier_key": f"k{n}", "name": f"Page {n}", "identity_type": kinds[n % 3]})["id"]
        for n in range(7)
    ]
    try:
        read: list[str] = []
        while page := ask("get", f"?limit=3&after={read[-1]}" if read else "?limit=3"):
            read += [each["id"] for each in page]
        assert read == made[::-1]
        assert [each["id"] for each in ask("get", "?order=asc&limit=2")] == made[:2]
        assert [each["id"] for each in ask("get", "?name=PAGE%205")] == [made[5]]
        assert [each["id"] for each in ask("get", "?identifier_key=k2")] == [made[2]]
        assert [each["id"] for each in ask("get", "?identity_type=org")] == [made[4], made[1]]
    finally:
        for identity_id in made:
            ask("delete", identity_id)


def test_agents_belong_to_identities(client: Letta, ask: Asking, ann: Any, agents: list[str]) -> None:
    for agent_id in agents[:3]:
        assert client.agents.identities.attach(ann["id"], agent_id=agent_id) is None
    client.agents.identities.attach(ann["id"], agent_id=agents[0])

    assert [each.id for each in client.agents.list(identity_id=ann["id"], limit=2, order="asc")] == agents[:3]
    assert [each.id for each in client.agents.list(identifier_keys=["user_ann", "none"])] == agents[2::-1]
    assert list(client.agents.list(identifier_keys=["none"])) == []
    assert [each["id"] for each in ask("get", f"{ann['id']}/agents?limit=2")] == agents[2:0:-1]
    assert client.get(f"/v1/agents/count?identity_id={ann['id']}", cast_to=object) == 3
    shown = client.agents.retrieve(agents[0], include=["agent.identities"])
    assert [each.identifier_key for each in shown.identities] == ["user_ann"]
    assert shown.identity_ids == [ann["id"]]
    assert client.agents.retrieve(agents[0], include=["agent.tags"]).identities == []
    assert sorted(ask("get", ann["id"])["agent_ids"]) == sorted(agents[:3])
    client.agents.identities.detach(ann["id"], agent_id=agents[0])
    assert [each.id for each in client.agents.list(identity_id=ann["id"], order="asc")] == agents[1:3]
    for agent_id, identity_id in ((agents[0], NOWHERE), (agents[0].replace(agents[0][-6:], "000000"), ann["id"])):
        with pytest.raises(NotFoundError):
            client.agents.identities.attach(identity_id, agent_id=agent_id)


def test_an_agent_is_made_and_changed_with_identities(client: Letta, ask: Asking, ann: Any) -> None:
    bea = ask("post", "", {"identifier_key": "user_bea", "name": "Bea", "identity_type": "user"})
    made = client.agents.create(model="builtin/echo", memory_blocks=[], identity_ids=[ann["id"]])
    assert [each.name for each in made.identities] == ["Ann"]
    changed = client.agents.update(made.id, identity_ids=[bea["id"]])
    assert [each.name for each in changed.identities] == ["Bea"]
    assert client.agents.update(made.id, description="d").identity_ids == [bea["id"]]
    ask("delete", bea["id"])
    assert client.agents.retrieve(made.id).identity_ids == []
    client.agents.delete(made.id)
    with pytest.raises(NotFoundError):
        client.agents.create(model="builtin/echo", name="nobodys", memory_blocks=[], identity_ids=[NOWHERE])
    assert list(client.agents.list(name="nobodys")) == []


def test_blocks_belong_to_identities(client: Letta, ask: Asking, ann: Any) -> None:
    blocks = [client.blocks.create(label=f"owned {n}", value="x").id for n in range(4)]
    for block_id in blocks[:3]:
        attached = client.patch(f"/v1/blocks/{block_id}/identities/attach/{ann['id']}", cast_to=object)
        assert attached["id"] == block_id

    assert [each.id for each in client.blocks.list(identity_id=ann["id"], limit=2)] == blocks[:3]
    assert [each.id for each in client.blocks.list(identifier_keys=["user_ann"])] == blocks[:3]
    assert [each["id"] for each in ask("get", f"{ann['id']}/blocks?limit=2")] == blocks[2:0:-1]
    client.patch(f"/v1/blocks/{blocks[1]}/identities/detach/{ann['id']}", cast_to=object)
    assert [each.id for each in client.blocks.list(identity_id=ann["id"])] == [blocks[0], blocks[2]]


@pytest.mark.varies
def test_the_typescript_sdk_says_to_whom_agents_belong(server: RunningServer, ann: Any, agents: list[str]) -> None:
    with typescript_client(server.http_url) as typescript:
        for agent_id in agents[:2]:
            typescript.call("agents.identities.attach", ann["id"], {"agent_id": agent_id})
        listed = typescript.call("agents.list", {"identity_id": ann["id"], "order": "asc"})
        typescript.call("agents.identities.detach", ann["id"], {"agent_id": agents[0]})
        left = typescript.call("agents.list", {"identifier_keys": ["user_ann"], "include": ["agent.identities"]})
        with pytest.raises(Refused) as refused:
            typescript.call("agents.identities.attach", NOWHERE, {"agent_id": agents[0]})

    assert [each["id"] for each in listed] == agents[:2]
    assert [(each["id"], [owner["name"] for owner in each["identities"]]) for each in left] == [(agents[1], ["Ann"])]
    assert refused.value.status == 404
