"""Every paged list, read to its end through the pagers of both unmodified SDKs, against what was put into it."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from letta_client import Letta
from tests.support.typescript import in_sdk

pytestmark = pytest.mark.varies  # other tests hold the bodies of the same lists; hundreds of pages would add nothing
_MANY = 7
_ENDLESS = 1000
ReadAll = Callable[[list["Call"]], list[list[str]]]


@dataclass(frozen=True)
class Call:
    """A call of a `list` method: `client.<resource>.list(*args, **params)`."""

    resource: str
    args: tuple[str, ...] = ()
    params: tuple[tuple[str, Any], ...] = ()

    def but(self, **params: Any) -> Call:
        return Call(self.resource, self.args, tuple((dict(self.params) | params).items()))


@dataclass(frozen=True)
class World:
    """What was made: ids in the order of creation, by list."""

    made: dict[str, list[str]]
    calls: dict[str, Call]


@pytest.fixture(scope="module")
def world(client: Letta) -> World:
    """Make seven of everything that lists show."""
    agents = [client.agents.create(model="builtin/echo", name=f"pager-{n}", tags=["pager"]).id for n in range(_MANY)]
    agent = agents[0]
    shared = client.blocks.create(label="shared", value="x").id
    blocks = [client.blocks.create(label=f"b{n}", value="x", tags=["pager"]).id for n in range(_MANY)]
    source = 'def pager_{n}() -> str:\n    """Return nothing."""\n    return ""\n'
    tools = [client.tools.create(source_code=source.format(n=n), tags=["pager"]).id for n in range(_MANY)]
    for other in agents:
        client.agents.blocks.attach(shared, agent_id=other)
    for block, tool in zip(blocks, tools, strict=True):
        client.agents.blocks.attach(block, agent_id=agent)
        client.agents.tools.attach(tool, agent_id=agent)
    sent = [client.agents.messages.create(agent, input=f"message {n}") for n in range(_MANY)]
    talk = client.conversations.create(agent_id=agents[1]).id
    for n in range(_MANY):
        list(client.conversations.messages.create(talk, input=f"words {n}"))
    ruled = client.agents.create(model="builtin/rules", memory_blocks=[{"label": "human", "value": ""}]).id
    told = client.agents.messages.create(ruled, input="My name is Sam.").messages
    archives = [client.archives.create(name=f"pager-{n}").id for n in range(_MANY)]
    runs = [answer.messages[0].run_id for answer in sent]
    made = {
        "agents": agents,
        "blocks": blocks,
        "tools": tools,
        "archives": archives,
        "agents.blocks": blocks,
        "blocks.agents": agents,
        "agents.tools": tools,
        "runs": runs,
        "runs.messages": [m.id for m in told],
        "runs.steps": [m.step_id for m in told if m.step_id],
        "steps": [answer.messages[0].step_id for answer in sent],
        "steps.messages": [m.id for m in told if m.step_id == told[0].step_id],
        "agents.messages": [m.id for answer in sent for m in answer.messages],
        "conversations.messages": [],
    }
    calls = {
        "agents": Call("agents", params=(("tags", ["pager"]),)),
        "blocks": Call("blocks", params=(("tags", ["pager"]),)),
        "tools": Call("tools", params=(("search", "pager_"),)),
        "archives": Call("archives"),
        "agents.blocks": Call("agents.blocks", (agent,)),
        "blocks.agents": Call("blocks.agents", (shared,)),
        "agents.tools": Call("agents.tools", (agent,)),
        "runs": Call("runs", params=(("agent_id", agent),)),
        "runs.messages": Call("runs.messages", (told[0].run_id,)),
        "runs.steps": Call("runs.steps", (told[0].run_id,)),
        "steps": Call("steps", params=(("agent_id", agent),)),
        "steps.messages": Call("steps.messages", (told[0].step_id,)),
        "agents.messages": Call("agents.messages", (agent,)),
        "conversations.messages": Call("conversations.messages", (talk,)),
    }
    return World(made, calls)


_LISTS = (
    *(
        "agents",
        "blocks",
        "tools",
        "archives",
        "agents.blocks",
        "blocks.agents",
        "agents.tools",
        "runs",
        "runs.messages",
    ),
    *("runs.steps", "steps", "steps.messages", "conversations.messages"),
)


@pytest.fixture(scope="module", params=["python", "typescript"])
def read_all(request: pytest.FixtureRequest, server: Any, client: Letta) -> ReadAll:
    """Return what reads lists to their end with one of the SDKs."""
    if request.param == "python":
        return lambda calls: [_python(client, call) for call in calls]
    script = in_sdk("list_all.mjs")
    return lambda calls: _typescript(script, server.http_url, calls)


def _python(client: Letta, call: Call) -> list[str]:
    found: Any = client
    for name in call.resource.split("."):
        found = getattr(found, name)
    return [item.id for item in itertools.islice(found.list(*call.args, **dict(call.params)), _ENDLESS)]


def _typescript(script: Path, url: str, calls: list[Call]) -> list[list[str]]:
    wanted = json.dumps([{"resource": c.resource, "args": c.args, "params": dict(c.params)} for c in calls])
    ran = subprocess.run(["node", script, url, wanted], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    answers: list[list[str]] = json.loads(ran.stdout)
    return answers


def unique(ids: list[str]) -> list[str]:
    """Drop neighbours with one id: a stored message may be shown as several."""
    return [id for id, _ in itertools.groupby(ids)]


def whole(client: Letta, call: Call) -> list[str]:
    """Return the list as one page shows it, oldest first."""
    found: Any = client
    for name in call.resource.split("."):
        found = getattr(found, name)
    page = found.list(*call.args, **dict(call.but(limit=1000, order="asc").params))
    return unique([item.id for item in page.items])


@pytest.mark.parametrize("name", _LISTS)
def test_a_pager_yields_everything_once_in_order(client: Letta, world: World, read_all: ReadAll, name: str) -> None:
    call = world.calls[name]
    every = whole(client, call)
    forwards = [call.but(limit=3, order=order) for order in ("asc", "desc")]
    by_default = [call.but(limit=3), call]

    up, down, third, fourth = (unique(ids) for ids in read_all([*forwards, *by_default]))

    assert set(world.made[name]) <= set(every)
    assert len(every) >= 2 if name.endswith(("messages", "steps")) else len(every) >= _MANY
    assert up == every
    assert down == every[::-1]
    assert third in (every, every[::-1])
    assert fourth == third


@pytest.mark.parametrize("name", _LISTS)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_pager_goes_backwards_too(client: Letta, world: World, read_all: ReadAll, name: str, order: str) -> None:
    every = whole(client, world.calls[name])
    listed = every if order == "asc" else every[::-1]

    (read,) = read_all([world.calls[name].but(limit=2, order=order, before=listed[-1])])

    pages = [unique(read)[n : n + 2] for n in range(0, len(every), 2)]
    assert sorted(itertools.chain(*pages)) == sorted(listed[:-1])


@pytest.mark.parametrize("order", [None, "asc", "desc"])
def test_messages_of_an_agent_are_each_read_once(
    client: Letta, world: World, read_all: ReadAll, order: str | None
) -> None:
    call = world.calls["agents.messages"]
    every = whole(client, call)
    asked = call.but(order=order) if order else call

    (read,) = read_all([asked])

    assert unique(read) == every
    assert set(world.made["agents.messages"]) <= set(every)


@pytest.mark.parametrize("order", [None, "desc"])
def test_the_newest_messages_come_oldest_first_and_lead_back_to_the_first_one(
    client: Letta, world: World, read_all: ReadAll, order: str | None
) -> None:
    call = world.calls["agents.messages"]
    call = call.but(order=order) if order else call
    every = whole(client, world.calls["agents.messages"])

    newest, newer, older, none = read_all(
        [
            call.but(limit=3),
            call.but(limit=3, after=every[4]),
            call.but(limit=3, before=every[-1]),
            call.but(limit=3, after=every[-1]),
        ]
    )

    assert unique(newest) == every[-3:]
    assert unique(newer) == every[5:]
    assert sorted(unique(older)) == sorted(every[:-1])
    assert none == []


def test_ascending_messages_page_through_all(client: Letta, world: World, read_all: ReadAll) -> None:
    call = world.calls["agents.messages"]
    (read,) = read_all([call.but(limit=3, order="asc")])
    assert unique(read) == whole(client, call)
