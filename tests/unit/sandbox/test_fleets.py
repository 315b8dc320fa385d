"""Servers of tenants: one for each, ended when unused, never more than allowed, none of them shared."""

import asyncio

import pytest

from letta_sandbox.calls import Env
from letta_sandbox.destinations import Destinations, read_destinations
from letta_sandbox.local.fleets import Fleet, Needs
from letta_sandbox.local.servers import ServerFailed


class FakeServer:
    """A server as its fleet sees it."""

    def __init__(self, needs: Needs, place: int) -> None:
        self.needs, self.place = needs, place
        self.dead, self.busy, self.closed = False, 0, False
        self.ended = asyncio.Event()

    async def close(self) -> None:
        self.closed = True
        self.ended.set()


class Starts:
    """Starts fake servers and remembers them."""

    def __init__(self) -> None:
        self.made: list[FakeServer] = []

    async def __call__(self, needs: Needs, place: int) -> FakeServer:
        self.made.append(FakeServer(needs, place))
        return self.made[-1]

    @property
    def open(self) -> list[FakeServer]:
        return [server for server in self.made if not server.closed]


@pytest.fixture
def starts():
    return Starts()


@pytest.fixture
async def fleet(starts):
    fleet = Fleet(starts, 4, idle_seconds=1000)
    yield fleet
    await fleet.close()


def packages(key, organization="org-1"):
    return Needs(Env(key=key, path=f"/envs/{key}", organization_id=organization))


def hosts(*texts, organization="org-1"):
    return Needs(Env(key="full", organization_id=organization), Destinations(read_destinations(texts)))


async def test_the_same_needs_have_the_same_server(fleet):
    assert await fleet.get(packages("a")) is await fleet.get(packages("a"))
    assert await fleet.get(hosts("a.org")) is await fleet.get(hosts("a.org"))


async def test_organizations_share_none_that_holds_something_of_theirs(fleet):
    assert await fleet.get(packages("a", "org-1")) is not await fleet.get(packages("a", "org-2"))
    assert await fleet.get(hosts("a.org", organization="org-1")) is not await fleet.get(
        hosts("a.org", organization="org-2")
    )


async def test_organizations_share_what_holds_nothing_of_theirs(fleet):
    bare = [Needs(Env(key="full", organization_id=organization)) for organization in ("org-1", "org-2")]

    assert await fleet.get(bare[0]) is await fleet.get(bare[1])


async def test_another_list_is_another_server(fleet):
    assert await fleet.get(hosts("a.org")) is not await fleet.get(hosts("a.org", "b.org"))


async def test_a_dead_server_is_replaced(fleet, starts):
    (await fleet.get(packages("a"))).dead = True

    assert (await fleet.get(packages("a"))).dead is False
    assert [server.closed for server in starts.made] == [True, False]


async def test_the_one_unused_for_longest_makes_room(fleet, starts):
    for key in "abcd":
        await fleet.get(packages(key, f"org-{key}"))
    await fleet.get(packages("a", "org-a"))
    await fleet.get(packages("e", "org-e"))

    assert [server.needs.env.key for server in starts.open] == ["a", "c", "d", "e"]


async def test_an_organization_gets_half_and_takes_no_place_of_others(fleet, starts):
    await fleet.get(packages("x", "org-2"))
    for key in "abcdef":
        await fleet.get(packages(key))

    assert [server.needs.env.key for server in starts.open] == ["x", "e", "f"]


async def test_busy_servers_are_kept_up_to_a_bound(fleet, starts):
    for number in range(8):
        (await fleet.get(packages("a", f"org-{number}"))).busy = 1
    with pytest.raises(ServerFailed, match="too many"):
        await fleet.get(packages("a", "org-8"))

    assert len(starts.open) == fleet.count == 8
    starts.made[3].busy = 0
    assert (await fleet.get(packages("a", "org-8"))).place == 4


async def test_no_organization_can_use_up_the_places_of_all(fleet):
    for key in "abcd":
        (await fleet.get(packages(key))).busy = 1
    with pytest.raises(ServerFailed, match="too many"):
        await fleet.get(packages("e"))

    assert await fleet.get(packages("e", "org-2"))


async def test_places_are_those_of_no_other(fleet, starts):
    for number in range(6):
        (await fleet.get(packages("a", f"org-{number}"))).busy = 1

    assert sorted(server.place for server in starts.open) == [1, 2, 3, 4, 5, 6]


async def test_what_is_unused_for_long_ends(starts):
    fleet = Fleet(starts, 4, idle_seconds=0.1)
    (await fleet.get(packages("busy"))).busy = 1
    await fleet.get(packages("idle"))
    await starts.made[1].ended.wait()

    assert [server.needs.env.key for server in starts.open] == ["busy"]
    await fleet.close()
    assert starts.open == []
