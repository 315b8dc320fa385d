"""A handler that calls another service: what it hands on without saying so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta_common.actor import Actor, acting_as
from letta_common.errors import BlockNotFound, DatabaseUnavailable, DeadlineExceeded
from tests.support.rpc import ALL_SCOPES

ANN = Actor("org-a", "user-ann", ALL_SCOPES)


@pytest.fixture
async def pair(start: Any) -> Any:
    """A front service whose handler calls the back service as its request says."""
    async with start(dev_mode=False) as back, start(back.identities, dev_mode=False) as front:
        front.servicer.next = back.stub
        yield front, back


async def test_actor_and_request_id_are_handed_on(pair: Any) -> None:
    front, back = pair
    with acting_as(front.identities.sign(ANN), request_id="req-9"):
        await front.stub.Read(front.ask("forward"), timeout=5)

    assert (back.servicer.seen.actor, back.servicer.seen.request_id) == (ANN, "req-9")
    assert front.servicer.seen.signed_actor == back.servicer.seen.signed_actor


async def test_deadline_shrinks_on_the_way(pair: Any) -> None:
    front, back = pair
    with acting_as(front.identities.sign(ANN)):
        await front.stub.Read(front.ask("forward"), timeout=5)

    assert back.servicer.seen.deadline < front.servicer.seen.deadline


async def test_error_of_the_second_service_reaches_the_first_caller(pair: Any) -> None:
    front, back = pair
    back.servicer.failures = [BlockNotFound("gone", block_id="block-7")]
    with acting_as(front.identities.sign(ANN)), pytest.raises(BlockNotFound) as caught:
        await front.stub.Read(front.ask("forward"), timeout=5)

    assert caught.value.metadata == {"block_id": "block-7"}


async def test_cancelling_the_first_call_cancels_the_second(pair: Any) -> None:
    front, back = pair
    posing = front.posing(front.identities.sign(ANN))
    call = front.bare.Read(front.ask("forward hang"), timeout=30, metadata=posing)
    await asyncio.wait_for(back.servicer.entered.wait(), 5)
    call.cancel()

    await asyncio.wait_for(back.servicer.cancelled.wait(), 5)


async def test_deadline_of_the_first_call_ends_the_second(pair: Any) -> None:
    front, back = pair
    with acting_as(front.identities.sign(ANN)), pytest.raises(DeadlineExceeded):
        await front.stub.Write(front.ask("forward hang"), timeout=1)

    await asyncio.wait_for(back.servicer.cancelled.wait(), 5)


async def test_service_that_stays_unavailable_is_reported_after_some_tries(pair: Any) -> None:
    front, back = pair
    back.servicer.failures = [DatabaseUnavailable("down") for _ in range(9)]
    with acting_as(front.identities.sign(ANN)), pytest.raises(DatabaseUnavailable):
        await front.stub.Write(front.ask("forward"), timeout=10)

    assert (front.servicer.calls, back.servicer.calls) == (1, 4)
