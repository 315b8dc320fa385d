"""UsageService, BudgetService, defaults of organizations and prices through a real server."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from letta.llm.v1 import budget_pb2
from letta.llm.v1 import budget_service_pb2 as bud
from letta.llm.v1 import embedding_service_pb2 as emb
from letta.llm.v1 import generation_service_pb2 as gen
from letta.llm.v1 import model_service_pb2 as mod
from letta.llm.v1 import usage_service_pb2 as pb
from letta_common.actor import Actor
from letta_common.errors import (
    BudgetExceeded,
    BudgetNotFound,
    CursorNotFound,
    InvalidArgument,
    LLMUnavailable,
    ModelNotFound,
    PermissionDenied,
    ValidationFailed,
)
from letta_rpc.client import streaming
from tests.contract.providers.llm_gateway.llm_prompts import prompt, user
from tests.contract.rpc.llm_gateway.conftest import ANN, BEN
from tests.fakes.wire import Fault, Say
from tests.support.rpc import DEFAULT_USER

GPT = "openai/gpt-4o-mini"
COST = round(11 * 0.15 + 7 * 0.60)
NOBODY = "budget-00000000-0000-4000-8000-000000000000"


async def generate(gateway, model: str = GPT, **booked: str) -> None:
    asked = prompt(user("hi"), model=model, attribution=gen.Attribution(**booked))
    await gateway.generations.Generate(gen.GenerateRequest(prompt=asked), timeout=30)


async def listen(gateway) -> None:
    asked = gen.StreamGenerateRequest(prompt=prompt(user("hi"), model=GPT))
    async with streaming(gateway.generations.StreamGenerate(asked, timeout=30)) as events:
        async for _ in events:
            pass


async def calls(gateway, **rest):
    return list((await gateway.usage.ListModelCalls(pb.ListModelCallsRequest(**rest), timeout=30)).calls)


async def sums(gateway, *by: int, **filter_):
    request = pb.AggregateUsageRequest(group_by=by, filter=pb.ModelCallFilter(**filter_))
    return list((await gateway.usage.AggregateUsage(request, timeout=30)).groups)


@pytest.fixture
async def gateway(start, openai):
    return await start(openai_api_key="k", openai_base_url=openai.base_url, attempts=1)


async def test_each_call_is_booked_with_tokens_cost_and_outcome(gateway, openai):
    await generate(gateway, agent_id="agent-1", run_id="run-1", step_id="step-1", purpose=gen.CALL_PURPOSE_STEP)
    openai.say(Fault(status=500))
    with pytest.raises(LLMUnavailable):
        await generate(gateway, agent_id="agent-2")

    failed, answered = await calls(gateway)
    assert (answered.agent_id, answered.run_id, answered.step_id, answered.purpose) == (
        "agent-1",
        "run-1",
        "step-1",
        gen.CALL_PURPOSE_STEP,
    )
    assert (answered.usage.prompt_tokens, answered.usage.completion_tokens) == (11, 7)
    assert (answered.model, answered.provider_type, answered.outcome) == (GPT, "openai", "ok")
    assert answered.cost_microdollars == COST
    assert answered.usage_source == gen.TOKEN_COUNT_SOURCE_PROVIDER
    assert answered.user_id == DEFAULT_USER
    assert (failed.outcome, failed.usage.prompt_tokens) == ("LLM_UNAVAILABLE", 0)
    assert not failed.HasField("run_id")


async def test_a_stream_is_booked_too(gateway, openai):
    await listen(gateway)

    [call] = await calls(gateway)
    assert (call.outcome, call.cost_microdollars) == ("ok", COST)


async def test_calls_are_filtered_and_paged(gateway):
    for at in range(4):
        await generate(gateway, agent_id=f"agent-{at % 2}", run_id=f"run-{at}")
    everything = await calls(gateway)

    assert [call.run_id for call in everything] == ["run-3", "run-2", "run-1", "run-0"]
    assert await calls(gateway, limit=2, after=everything[0].id) == everything[1:3]
    assert await calls(gateway, filter=pb.ModelCallFilter(agent_id="agent-1")) == everything[::2]
    assert await calls(gateway, filter=pb.ModelCallFilter(run_id="run-2")) == [everything[1]]
    late = Timestamp(seconds=everything[0].created_at.seconds + 3600)
    assert await calls(gateway, filter=pb.ModelCallFilter(start_at=late)) == []
    assert len(await calls(gateway, filter=pb.ModelCallFilter(end_at=late))) == 4
    with pytest.raises(CursorNotFound):
        await calls(gateway, after="nonsense")
    with pytest.raises(ValidationFailed):
        await calls(gateway, limit=-1)


async def test_another_organization_sees_no_call_and_no_sum(gateway):
    await generate(gateway, agent_id="agent-1")

    with gateway.as_actor(BEN):
        assert await calls(gateway) == []
        assert await calls(gateway, filter=pb.ModelCallFilter(agent_id="agent-1", user_id=ANN.user_id)) == []
        [nothing] = await sums(gateway)
        assert (nothing.calls, nothing.HasField("cost_microdollars")) == (0, False)
        assert await sums(gateway, pb.USAGE_GROUP_BY_USER) == []


async def test_sums_are_grouped(gateway):
    for agent in ("agent-1", "agent-1", "agent-2"):
        await generate(gateway, agent_id=agent, run_id="run-1")
    await generate(gateway, "builtin/echo", agent_id="agent-1")

    by_agent = await sums(gateway, pb.USAGE_GROUP_BY_AGENT)
    assert [(group.agent_id, group.calls, group.cost_microdollars) for group in by_agent] == [
        ("agent-1", 3, 2 * COST),
        ("agent-2", 1, COST),
    ]
    assert not by_agent[0].HasField("model")
    by_both = await sums(gateway, pb.USAGE_GROUP_BY_DAY, pb.USAGE_GROUP_BY_MODEL, agent_id="agent-1")
    assert [(group.model, group.calls) for group in by_both] == [("builtin/echo", 1), (GPT, 2)]
    assert len({group.day for group in by_both}) == 1
    [run] = [group for group in await sums(gateway, pb.USAGE_GROUP_BY_RUN) if group.run_id]
    assert (run.calls, run.prompt_tokens, run.completion_tokens) == (3, 33, 21)
    for bad in ([pb.USAGE_GROUP_BY_DAY] * 2, [0], [99]):
        with pytest.raises(ValidationFailed):
            await sums(gateway, *bad)


async def test_a_cost_that_nobody_knows_is_absent_and_not_zero(start, openai):
    openai.models.append({"id": "gpt-6-dreams"})
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    await generate(gateway, "openai/gpt-6-dreams")
    await generate(gateway, "builtin/echo")

    free, unknown = await calls(gateway)
    assert free.HasField("cost_microdollars")
    assert free.cost_microdollars == 0
    assert not unknown.HasField("cost_microdollars")
    groups = {group.model: group for group in await sums(gateway, pb.USAGE_GROUP_BY_MODEL)}
    assert not groups["openai/gpt-6-dreams"].HasField("cost_microdollars")
    assert groups["openai/gpt-6-dreams"].unpriced_calls == 1


async def test_a_deployments_prices_are_used_and_shown(start, openai, tmp_path):
    file = tmp_path / "prices.json"
    file.write_text('{"openai/gpt-4.1": {"input": 1000, "output": 0}}')
    prices = {GPT: {"input": 1_000_000, "output": 1_000_000}, "builtin/*": None}
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, prices=prices, prices_file=file)
    await generate(gateway)

    [call] = await calls(gateway)
    assert call.cost_microdollars == 18_000_000
    listed = {m.handle: m for m in (await gateway.models.ListModels(mod.ListModelsRequest(), timeout=30)).models}
    assert listed[GPT].prices.input == 1_000_000
    assert listed["openai/gpt-4.1"].prices.input == 1000
    assert not listed["openai/gpt-4.1"].prices.HasField("cached_input")
    assert not listed["builtin/rules"].HasField("prices")
    assert listed["openai/gpt-4.1"].max_output_tokens == 32_768


def wanted(limit: int = 100, **rest) -> bud.SetBudgetRequest:
    return bud.SetBudgetRequest(budget=budget_pb2.Budget(limit_microdollars=limit, **rest))


async def set_budget(gateway, limit: int = 100, **rest) -> budget_pb2.Budget:
    return (await gateway.budgets.SetBudget(wanted(limit, **rest), timeout=30)).budget


async def list_budgets(gateway, **rest):
    return list((await gateway.budgets.ListBudgets(bud.ListBudgetsRequest(**rest), timeout=30)).budgets)


async def test_a_budget_refuses_when_it_is_used_up_and_is_named(gateway, openai):
    made = await set_budget(gateway, COST)
    assert (made.scope, made.period, made.action) == (
        budget_pb2.BUDGET_SCOPE_ORGANIZATION,
        budget_pb2.BUDGET_PERIOD_MONTH,
        budget_pb2.BUDGET_ACTION_REFUSE,
    )
    await generate(gateway)
    sent = len(openai.requests)

    with pytest.raises(BudgetExceeded) as caught:
        await generate(gateway)
    assert caught.value.metadata["budget_id"] == made.id
    with pytest.raises(BudgetExceeded):
        await listen(gateway)
    assert len(openai.requests) == sent, "the vendor was not asked"
    [listed] = await list_budgets(gateway)
    assert (listed.id, listed.spent_microdollars) == (made.id, COST)

    raised = await set_budget(gateway, 10 * COST)
    assert (raised.id, raised.spent_microdollars) == (made.id, COST)
    await generate(gateway)


async def test_budgets_of_users_and_agents(gateway):
    await set_budget(gateway, 0, scope=budget_pb2.BUDGET_SCOPE_AGENT, subject_id="agent-poor")
    await set_budget(gateway, 0, scope=budget_pb2.BUDGET_SCOPE_USER, subject_id="user-poor")
    poor = Actor(ANN.organization_id, "user-poor", ANN.scopes)

    with pytest.raises(BudgetExceeded, match="agent-poor"):
        await generate(gateway, agent_id="agent-poor")
    await generate(gateway, agent_id="agent-rich")
    with gateway.as_actor(poor), pytest.raises(BudgetExceeded, match="user-poor"):
        await generate(gateway)
    with gateway.as_actor(BEN):
        await generate(gateway, agent_id="agent-poor")


async def test_a_budget_that_warns_lets_pass(gateway):
    await set_budget(gateway, 0, action=budget_pb2.BUDGET_ACTION_WARN)

    await generate(gateway)


async def test_a_spent_budget_refuses_a_caller_vectors_and_memory_none(gateway, openai):
    made = await set_budget(gateway, 0)
    asked = emb.CreateEmbeddingsRequest(model="openai/text-embedding-3-small", text="How much is it?")
    with pytest.raises(BudgetExceeded) as caught:
        await gateway.embeddings.CreateEmbeddings(asked, timeout=30)
    assert caught.value.metadata["budget_id"] == made.id
    assert not [request for request in openai.requests if request.path.endswith("/embeddings")]
    await gateway.embeddings.Embed(emb.EmbedRequest(model=asked.model, texts=[asked.text]), timeout=30)

    await set_budget(gateway, 10 * COST)
    assert (await gateway.embeddings.CreateEmbeddings(asked, timeout=30)).data[0].numbers.values


async def test_many_callers_at_once_stay_within_the_overshoot(gateway, openai):
    limit = 5 * COST
    await set_budget(gateway, limit)
    openai.respond = lambda _: Say("x", pause=0.001)

    done = await asyncio.gather(*(generate(gateway) for _ in range(60)), return_exceptions=True)

    assert all(result is None or isinstance(result, BudgetExceeded) for result in done)
    spent = sum(call.cost_microdollars for call in await calls(gateway, limit=1000))
    assert spent <= limit + COST
    done = await asyncio.gather(*(generate(gateway) for _ in range(6)), return_exceptions=True)
    assert any(isinstance(result, BudgetExceeded) for result in done)


async def test_budgets_are_listed_in_pages_and_deleted(gateway):
    made = [
        await set_budget(gateway, 1, scope=budget_pb2.BUDGET_SCOPE_AGENT, subject_id=f"agent-{at}") for at in range(3)
    ]

    assert [budget.id for budget in await list_budgets(gateway)] == [budget.id for budget in made[::-1]]
    assert [budget.id for budget in await list_budgets(gateway, limit=1, after=made[2].id)] == [made[1].id]
    with pytest.raises(CursorNotFound):
        await list_budgets(gateway, after="nonsense")
    with gateway.as_actor(BEN):
        assert await list_budgets(gateway) == []
        with pytest.raises(BudgetNotFound):
            await gateway.budgets.DeleteBudget(bud.DeleteBudgetRequest(budget_id=made[0].id), timeout=30)
    await gateway.budgets.DeleteBudget(bud.DeleteBudgetRequest(budget_id=made[0].id), timeout=30)
    assert len(await list_budgets(gateway)) == 2
    with pytest.raises(BudgetNotFound):
        await gateway.budgets.DeleteBudget(bud.DeleteBudgetRequest(budget_id=NOBODY), timeout=30)


@pytest.mark.parametrize(
    "bad",
    [
        {"limit": -1},
        {"scope": 77},
        {"action": 77},
        {"period": 77},
        {"scope": budget_pb2.BUDGET_SCOPE_USER},
        {"subject_id": "user-a"},
    ],
)
async def test_nonsense_for_a_budget_is_refused(gateway, bad):
    with pytest.raises((ValidationFailed, InvalidArgument)):
        await set_budget(gateway, **{"limit": 1, **bad})


async def test_only_who_manages_the_organization_sets_budgets(gateway):
    usual = Actor(ANN.organization_id, ANN.user_id, frozenset({"read", "write"}))
    made = await set_budget(gateway)

    with gateway.as_actor(usual):
        with pytest.raises(PermissionDenied):
            await set_budget(gateway, 10**9)
        with pytest.raises(PermissionDenied):
            await gateway.budgets.DeleteBudget(bud.DeleteBudgetRequest(budget_id=made.id), timeout=30)
        assert len(await list_budgets(gateway)) == 1


async def choose(gateway, handle: str = "", embedder: str = "") -> None:
    chosen = mod.ModelDefaults(handle=handle, embedding_handle=embedder)
    await gateway.models.SetModelDefaults(mod.SetModelDefaultsRequest(defaults=chosen), timeout=30)


async def test_an_organization_chooses_its_default_models(gateway):
    await choose(gateway, "openai/gpt-4.1", "openai/text-embedding-3-small")

    got = (await gateway.models.GetModelDefaults(mod.GetModelDefaultsRequest(), timeout=30)).defaults
    assert (got.handle, got.embedding_handle) == ("openai/gpt-4.1", "openai/text-embedding-3-small")
    model = (await gateway.models.GetModel(mod.GetModelRequest(), timeout=30)).model
    assert model.handle == "openai/gpt-4.1"
    embedder = (await gateway.models.GetEmbeddingModel(mod.GetEmbeddingModelRequest(), timeout=30)).model
    assert embedder.handle == "openai/text-embedding-3-small"
    default = await gateway.models.GetDefaultModel(mod.GetDefaultModelRequest(), timeout=30)
    assert (default.handle, default.reason) == ("openai/gpt-4.1", "the organization chose it")
    with gateway.as_actor(BEN):
        model = (await gateway.models.GetModel(mod.GetModelRequest(), timeout=30)).model
        assert model.handle == GPT

    await choose(gateway)
    model = (await gateway.models.GetModel(mod.GetModelRequest(), timeout=30)).model
    assert model.handle == GPT


async def test_a_default_that_nobody_offers_is_refused(gateway):
    for handle, embedder in (("openai/nope", ""), ("nobody/x", ""), ("", "openai/gpt-4.1")):
        with pytest.raises(ModelNotFound):
            await choose(gateway, handle, embedder)
