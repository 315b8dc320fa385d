"""Limits of calls at once, through a real server: whom the vendor hears first, and that each account stands alone."""

from __future__ import annotations

import asyncio

import pytest

from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1 import provider_pb2, provider_service_pb2
from letta_common.actor import Actor
from letta_common.errors import LLMUnavailable
from letta_rpc.client import streaming
from tests.contract.providers.llm_gateway.llm_prompts import prompt, user
from tests.contract.rpc.llm_gateway.conftest import ANN, BEN
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Fault, Say

GPT = "openai/gpt-4o-mini"


class Gate(OpenAIServer):
    """A vendor that answers only as many calls as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.asked_for = asyncio.Semaphore(0)
        self.answers = asyncio.Semaphore(0)

    async def _complete(self, body, out, **rest) -> None:
        self.heard.append(self.last_said(body)[1])
        self.asked_for.release()
        await self.answers.acquire()
        await super()._complete(body, out, **rest)


@pytest.fixture
async def gate():
    async with Gate() as vendor:
        yield vendor


async def say(gateway, words: str, actor: Actor, *, stream: bool = False, model: str = GPT) -> None:
    asked = prompt(user(words), model=model)
    with gateway.as_actor(actor):
        if stream:
            request = pb.StreamGenerateRequest(prompt=asked)
            async with streaming(gateway.generations.StreamGenerate(request, timeout=30)) as events:
                async for _ in events:
                    pass
        else:
            await gateway.generations.Generate(pb.GenerateRequest(prompt=asked), timeout=30)


async def heard(gateway, gate: Gate, burst: list[Actor], late: Actor, *, stream: bool) -> list[str]:
    """Let a burst fill the queue, then one more caller come; return whom the vendor heard."""
    early = [asyncio.create_task(say(gateway, "early", actor, stream=stream)) for actor in burst]
    await gate.asked_for.acquire()
    await gate.asked_for.acquire()  # both slots are taken
    await asyncio.sleep(0.1)  # the rest of the burst comes to wait
    one = asyncio.create_task(say(gateway, "late", late, stream=stream))
    await asyncio.sleep(0.1)
    for _ in range(len(burst) + 1):
        gate.answers.release()
    await asyncio.gather(*early, one)
    return gate.heard


@pytest.mark.parametrize("stream", [False, True])
async def test_a_burst_of_one_organization_does_not_hold_up_another(start, gate, stream):
    gateway = await start(openai_api_key="k", openai_base_url=gate.base_url, provider_slots=2)
    order = await heard(gateway, gate, [ANN] * 20, BEN, stream=stream)

    assert order.index("late") <= 3, "next but those that were under way"


async def test_control_within_one_organization_the_last_to_come_is_the_last(start, gate):
    gateway = await start(openai_api_key="k", openai_base_url=gate.base_url, provider_slots=2)
    order = await heard(gateway, gate, [ANN] * 20, ANN, stream=False)

    assert order.index("late") >= 19


async def test_users_of_an_organization_take_turns(start, gate):
    gateway = await start(openai_api_key="k", openai_base_url=gate.base_url, organization_slots=2)
    order = await heard(gateway, gate, [ANN] * 20, Actor(ANN.organization_id, "user-other"), stream=False)

    assert order.index("late") <= 3


async def test_organizations_with_providers_of_one_name_do_not_share_slots(start, gate):
    gateway = await start(provider_slots=2)
    for actor in (ANN, BEN):
        own = provider_pb2.Provider(name="mine", provider_type="openai", api_key="k", base_url=gate.base_url)
        with gateway.as_actor(actor):
            request = provider_service_pb2.CreateProviderRequest(provider=own)
            await gateway.providers.CreateProvider(request, timeout=30)
    model = "mine/gpt-4o-mini"
    ours = [asyncio.create_task(say(gateway, "ours", ANN, model=model)) for _ in range(2)]
    theirs = [asyncio.create_task(say(gateway, "theirs", BEN, model=model)) for _ in range(2)]

    async with asyncio.timeout(5):
        for _ in range(4):  # nobody is answered yet, and all four are heard
            await gate.asked_for.acquire()
    for _ in range(4):
        gate.answers.release()
    await asyncio.gather(*ours, *theirs)


async def test_a_breaker_of_one_organizations_provider_leaves_others_alone(start, openai):
    gateway = await start(attempts=1)
    for actor in (ANN, BEN):
        own = provider_pb2.Provider(name="mine", provider_type="openai", api_key="k", base_url=openai.base_url)
        with gateway.as_actor(actor):
            request = provider_service_pb2.CreateProviderRequest(provider=own)
            await gateway.providers.CreateProvider(request, timeout=30)
    openai.respond = lambda _: Fault(status=500)
    for _ in range(8):
        with pytest.raises(LLMUnavailable):
            await say(gateway, "hi", ANN, model="mine/gpt-4o-mini")
    openai.respond = openai.default

    with pytest.raises(LLMUnavailable, match="in a row"):
        await say(gateway, "hi", ANN, model="mine/gpt-4o-mini")
    await say(gateway, "hi", BEN, model="mine/gpt-4o-mini")


async def test_an_open_breaker_fails_over_at_once(start, openai, anthropic):
    gateway = await start(
        openai_api_key="k",
        openai_base_url=openai.base_url,
        anthropic_api_key="k",
        anthropic_base_url=anthropic.base_url,
        attempts=1,
        fallbacks={GPT: ["anthropic/claude-haiku-4-5-20251001"]},
    )
    openai.respond = lambda _: Fault(status=500)
    for _ in range(8):
        await say(gateway, "hi", ANN)
    before = len(openai.requests)
    anthropic.say(Say("I stand in."))

    await say(gateway, "hi", ANN, stream=True)
    assert len(openai.requests) == before
    assert len(anthropic.requests) >= 9
