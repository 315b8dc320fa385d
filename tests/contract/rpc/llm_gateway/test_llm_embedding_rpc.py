"""EmbeddingService through a real server: every provider, common batches, turns, what is remembered of whom."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from letta.llm.v1 import embedding_service_pb2 as pb
from letta.llm.v1 import generation_service_pb2, provider_pb2, provider_service_pb2
from letta.llm.v1 import usage_service_pb2 as usage
from letta_common.errors import CapabilityMissing, LLMAuthentication, LLMBadRequest, LLMUnavailable, RateLimited
from tests.contract.rpc.llm_gateway.conftest import BEN
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.google_server import GoogleServer
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Fault

SMALL = "openai/text-embedding-3-small"
VENDORS: dict[str, tuple[type[Any], str]] = {
    "openai": (OpenAIServer, "text-embedding-3-small"),
    "openai-compatible": (OpenAIServer, "text-embedding-3-small"),
    "vllm": (OpenAIServer, "text-embedding-3-small"),
    "ollama": (OpenAIServer, "nomic-embed-text:latest"),
    "google_ai": (GoogleServer, "gemini-embedding-001"),
}


async def embed(gateway, *texts: str, model: str = SMALL, background: bool = False) -> list[list[float]]:
    request = pb.EmbedRequest(model=model, texts=texts, background=background)
    answer = await gateway.embeddings.Embed(request, timeout=30)
    return [list(row.values) for row in answer.embeddings]


def sent(vendor) -> list[list[str]]:
    """Return the texts of each call that the vendor got."""
    found = []
    for request in vendor.requests:
        if request.path.partition("?")[0].endswith("/embeddings"):
            found.append(list(request.body["input"]))
        elif "batchEmbedContents" in request.path:
            found.append([row["content"]["parts"][0]["text"] for row in request.body["requests"]])
    return found


async def own(gateway, vendor, kind: str, name: str = "mine") -> None:
    made = provider_pb2.Provider(name=name, provider_type=kind, api_key="k", base_url=vendor.base_url)
    await gateway.providers.CreateProvider(provider_service_pb2.CreateProviderRequest(provider=made), timeout=30)


@pytest.mark.parametrize("kind", VENDORS)
async def test_every_provider_embeds_in_order_with_unit_length_and_each_text_once(start, kind):
    make, name = VENDORS[kind]
    async with make() as vendor:
        vendor.models.append({"id": name})
        gateway = await start()
        await own(gateway, vendor, kind)
        texts = ["one", "two", "three", "one"]

        found = await embed(gateway, *texts, model=f"mine/{name}")
        assert found[0] == found[3]
        assert len({tuple(row) for row in found}) == 3
        assert all(math.isclose(sum(value**2 for value in row), 1, rel_tol=1e-4) for row in found)
        alone = await embed(gateway, "two", model=f"mine/{name}")
        assert alone == [found[1]], "the order is that of the texts, and it is remembered"
        assert sorted(text for call in sent(vendor) for text in call) == ["one", "three", "two"]


async def test_this_machine_embeds_without_any_vendor(start):
    gateway = await start()

    one, same, other = await embed(gateway, "Where do I live?", "Where do I live?", "tax law", model="")
    assert (len(one), one == same, one == other) == (512, True, False)
    assert math.isclose(sum(value**2 for value in one), 1, rel_tol=1e-3)


async def test_a_vendor_without_an_embedder_says_so(start, anthropic):
    gateway = await start(anthropic_api_key="k", anthropic_base_url=anthropic.base_url)
    anthropic.models.append({"id": "text-embedding-3-small"})

    with pytest.raises(CapabilityMissing):
        await embed(gateway, "a", model="anthropic/text-embedding-3-small")
    assert isinstance(anthropic, AnthropicServer)


@pytest.fixture
async def gateway(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    await embed(gateway, "warm")
    openai.requests.clear()
    return gateway


async def test_callers_at_once_share_calls_of_the_vendor(gateway, openai):
    real = openai._embed

    async def slow(body, out):
        await asyncio.sleep(0.3)  # meanwhile the others come to wait
        await real(body, out)

    openai._embed = slow
    made = await asyncio.gather(*(embed(gateway, f"text {at}") for at in range(60)))

    assert len({tuple(row) for [row] in made}) == 60
    assert sum(map(len, sent(openai))) == 60
    assert len(sent(openai)) <= 15, "60 callers, a few calls"


async def test_callers_at_once_with_the_same_text_ask_once(gateway, openai):
    made = await asyncio.gather(*(embed(gateway, "the same") for _ in range(20)))

    assert len({tuple(row) for [row] in made}) == 1
    assert sent(openai) == [["the same"]]


async def test_many_texts_go_out_in_batches(gateway, openai):
    texts = [f"text {at}" for at in range(500)]
    found = await embed(gateway, *texts)

    assert max(map(len, sent(openai))) <= 96
    assert found[321] == (await embed(gateway, "text 321"))[0]


async def test_one_callers_bad_text_does_not_fail_the_others(gateway, openai):
    real = openai._embed

    async def picky(body, out):
        if "bad" in body["input"]:
            await out.json({"error": {"message": "input is invalid"}}, 400)
        else:
            await real(body, out)

    openai._embed = picky
    good, bad, fine = await asyncio.gather(
        embed(gateway, "good"), embed(gateway, "bad", "innocent"), embed(gateway, "fine"), return_exceptions=True
    )

    assert isinstance(bad, LLMBadRequest)
    assert len(good) == len(fine) == 1
    assert len(await embed(gateway, "innocent")) == 1, "a failure is not remembered"


async def test_refusals_that_pass_are_retried_and_others_are_told(gateway, openai):
    openai.say(Fault(status=503))
    assert await embed(gateway, "again")
    openai.say(Fault(status=401))
    with pytest.raises(LLMAuthentication):
        await embed(gateway, "refused")
    openai.say(*[Fault(status=503)] * 9)
    with pytest.raises(LLMUnavailable):
        await embed(gateway, "away")


async def test_who_waits_goes_before_what_nobody_waits_for(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    await embed(gateway, "warm")
    openai.requests.clear()
    real, turn = openai._embed, asyncio.Semaphore(0)

    async def slow(body, out):
        await turn.acquire()
        await real(body, out)

    openai._embed = slow
    later = asyncio.create_task(embed(gateway, *(f"later {at}" for at in range(300)), background=True))
    async with asyncio.timeout(5):
        while not sent(openai):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    now = asyncio.create_task(embed(gateway, "now", "later 299"))
    async with asyncio.timeout(5):
        while len(sent(openai)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    assert all(text.startswith("later") for text in sent(openai)[0])
    assert sorted(sent(openai)[1]) == ["later 299", "now"], "what somebody waits for now is taken out of the queue"
    for _ in range(10):
        turn.release()
    await now
    assert len(await later) == 300
    assert sum(map(len, sent(openai))) == 301, "no text twice"


async def test_organizations_share_no_vectors(gateway, openai):
    await embed(gateway, "secret plan")
    with gateway.as_actor(BEN):
        await embed(gateway, "secret plan")

    assert sent(openai) == [["secret plan"]] * 2, "the second is not told by its speed that the first exists"


async def test_a_caller_that_leaves_fails_nobody(gateway, openai):
    leaver = asyncio.create_task(embed(gateway, "shared"))
    stayer = asyncio.create_task(embed(gateway, "shared"))
    await asyncio.sleep(0)
    leaver.cancel()

    assert len(await stayer) == 1
    assert sent(openai) == [["shared"]]


async def test_what_a_vendor_embedded_is_booked(gateway):
    long = "".join(f"{at:07} " for at in range(50_000))
    await embed(gateway, long, "y")
    await embed(gateway, long)

    found = (await gateway.usage.ListModelCalls(usage.ListModelCallsRequest(limit=1), timeout=30)).calls
    assert (found[0].purpose, found[0].model) == (generation_service_pb2.CALL_PURPOSE_EMBEDDING, SMALL)
    assert 99_900 < found[0].usage.prompt_tokens <= 100_001, "without the spaces between pieces"
    assert 1_998 <= found[0].cost_microdollars <= 2_000
    request = usage.AggregateUsageRequest(group_by=[usage.USAGE_GROUP_BY_MODEL])
    [group] = (await gateway.usage.AggregateUsage(request, timeout=30)).groups
    assert group.calls == 2, "the warm one and this; what is remembered costs nothing"


async def test_a_text_without_a_named_model_is_embedded_by_the_deployments(start, openai):
    """An organization's choice is for what it makes anew; what was embedded without a name is found without one."""
    from letta.llm.v1 import model_service_pb2 as mod

    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    chosen = mod.ModelDefaults(embedding_handle=SMALL)
    await gateway.models.SetModelDefaults(mod.SetModelDefaultsRequest(defaults=chosen), timeout=30)

    answer = await gateway.embeddings.Embed(pb.EmbedRequest(texts=["a"]), timeout=30)
    assert answer.model == "builtin/use-multilingual"


async def test_long_texts_go_out_in_pieces_that_the_embedder_reads_and_calls_that_it_takes(gateway, openai):
    long = " ".join(f"word{at}" for at in range(60_000))
    [made] = await embed(gateway, long)

    pieces = [text for call in sent(openai) for text in call]
    assert {word for text in pieces for word in text.split()} == set(long.split()), "all of it is embedded"
    assert max(len(text.encode()) for text in pieces) <= 8_000, "never more tokens than the vendor reads"
    assert max(sum(len(text.encode()) for text in call) for call in sent(openai)) <= 256_000
    assert math.isclose(sum(value**2 for value in made), 1, rel_tol=1e-4)
    calls = len(sent(openai))
    assert (await embed(gateway, long))[0] == pytest.approx(made, abs=1e-5)
    assert len(sent(openai)) == calls


async def test_one_organizations_long_texts_do_not_hold_up_anothers(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    await embed(gateway, "warm")
    openai.requests.clear()
    real, turn = openai._embed, asyncio.Semaphore(0)

    async def slow(body, out):
        await turn.acquire()
        await real(body, out)

    openai._embed = slow
    long = [" ".join(f"{name}{at}" for at in range(60_000)) for name in "abcd"]
    large = [asyncio.create_task(embed(gateway, text)) for text in long]
    async with asyncio.timeout(5):
        while len(sent(openai)) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    with gateway.as_actor(BEN):
        small = asyncio.create_task(embed(gateway, "a small one"))
    await asyncio.sleep(0.1)
    turn.release()
    async with asyncio.timeout(5):
        while len(sent(openai)) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    assert "a small one" in sent(openai)[4], "it is in the first call after those that were under way"
    for _ in range(40):
        turn.release()
    assert len(await small) == 1
    assert len(await asyncio.gather(*large)) == 4


async def test_more_than_an_organization_may_let_wait_is_refused_and_others_are_not(start, openai):
    gateway = await start(
        openai_api_key="k", openai_base_url=openai.base_url, embedding_waiting_megabytes=0.5, embedding_pause_seconds=0
    )
    await embed(gateway, "warm")
    real, turn = openai._embed, asyncio.Semaphore(0)

    async def slow(body, out):
        await turn.acquire()
        await real(body, out)

    openai._embed = slow
    long = " ".join(f"word{at}" for at in range(200_000))
    waiting = asyncio.create_task(embed(gateway, long))
    async with asyncio.timeout(5):
        while len(openai.requests) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    with pytest.raises(RateLimited) as caught:
        await embed(gateway, "one more")
    assert caught.value.metadata["retry_after"]
    with gateway.as_actor(BEN):
        other = asyncio.create_task(embed(gateway, "another's"))
    for _ in range(40):
        turn.release()
    assert len(await other) == len(await waiting) == 1
