"""Two replicas of the model gateway on one database: they share budgets, keys and books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from letta.llm.v1 import budget_pb2, budget_service_pb2, provider_pb2, provider_service_pb2, usage_service_pb2
from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1.budget_service_pb2_grpc import BudgetServiceStub
from letta.llm.v1.generation_service_pb2_grpc import GenerationServiceStub
from letta.llm.v1.provider_service_pb2_grpc import ProviderServiceStub
from letta.llm.v1.usage_service_pb2_grpc import UsageServiceStub
from letta_common.actor import Actor, Request, bind_request
from letta_common.errors import BudgetExceeded
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.store.accounts import SqlProviderStore
from letta_llm_gateway.store.budgets import SqlBudgetStore
from letta_llm_gateway.store.usage import SqlUsageStore
from letta_llm_gateway.wiring import GatewayStores, assemble
from letta_postgres.db import Database
from letta_rpc.service import Deps
from tests.contract.providers.llm_gateway.llm_prompts import prompt, user
from tests.support.rpc import Identities, running

GPT = "openai/gpt-4o-mini"
COST = round(11 * 0.15 + 7 * 0.60)


@pytest.fixture
async def replicas(database_url, tmp_path, openai) -> AsyncIterator[list[Any]]:
    """Two replicas, which know each other by the database alone."""
    async with AsyncExitStack() as stack:
        identities, found = Identities(), []
        for _ in range(2):
            db = await Database.open(database_url, schema="llm")
            await db.hot("truncate llm.providers, llm.usage, llm.budgets, llm.spending")
            settings = LLMGatewaySettings(
                home=tmp_path,
                openai_api_key="k",
                openai_base_url=openai.base_url,
                ollama_probe=False,
                dev_mode=True,
                budget_seconds=0.01,
            )
            stores = GatewayStores(SqlProviderStore(db), SqlUsageStore(db), SqlBudgetStore(db))
            service = assemble(settings, Deps(), stores, db.close)
            found.append(await stack.enter_async_context(running(service, "local", identities=identities)))
        bind_request(Request(signed_actor=identities.sign(Actor("org-a", "user-a"))))
        yield found


async def generate(channel, model: str = GPT) -> bool:
    """Ask once; say whether it was let through."""
    try:
        asked = pb.GenerateRequest(prompt=prompt(user("hi"), model=model))
        await GenerationServiceStub(channel).Generate(asked, timeout=10)
    except BudgetExceeded:
        return False
    return True


async def booked(channel) -> Any:
    request = usage_service_pb2.AggregateUsageRequest()
    [group] = (await UsageServiceStub(channel).AggregateUsage(request, timeout=5)).groups
    return group


async def test_both_stop_at_one_budget_and_every_call_is_in_the_books(replicas):
    one, two = replicas
    limit = 20 * COST
    budget = budget_pb2.Budget(limit_microdollars=limit)
    request = budget_service_pb2.SetBudgetRequest(budget=budget)
    await BudgetServiceStub(one).SetBudget(request, timeout=5)

    passed, refused = 0, [False, False]
    async with asyncio.timeout(20):
        while not all(refused):
            passed += sum(await asyncio.gather(*(generate(channel) for channel in (one, two) for _ in range(3))))
            alone = [await generate(one), await generate(two)]  # nothing else is in flight, nothing is held
            passed += sum(alone)
            refused = [not done for done in alone]
    assert passed >= 20, "all of it could be spent"

    for channel in (one, two):
        await booked(channel)  # each writes what it still holds
    group = await booked(one)
    assert (group.calls, group.cost_microdollars) == (passed, passed * COST)
    budgets = (await BudgetServiceStub(two).ListBudgets(budget_service_pb2.ListBudgetsRequest(), timeout=5)).budgets
    assert [each.spent_microdollars for each in budgets] == [passed * COST]


async def test_a_provider_made_at_one_is_used_at_the_other(replicas, openai):
    one, two = replicas
    own = provider_pb2.Provider(name="mine", provider_type="openai", api_key="sk-own", base_url=openai.base_url)
    request = provider_service_pb2.CreateProviderRequest(provider=own)
    await ProviderServiceStub(one).CreateProvider(request, timeout=5)
    openai.keys = {"sk-own"}

    assert await generate(two, "mine/gpt-4o-mini")
