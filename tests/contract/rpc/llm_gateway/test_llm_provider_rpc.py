"""ProviderService, ModelService, EmbeddingService and TraceService through a real server."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.llm.v1 import embedding_service_pb2 as emb
from letta.llm.v1 import generation_service_pb2 as gen
from letta.llm.v1 import model_pb2, provider_pb2
from letta.llm.v1 import model_service_pb2 as mod
from letta.llm.v1 import provider_service_pb2 as pb
from letta.llm.v1 import trace_service_pb2 as tr
from letta_common.actor import Actor
from letta_common.errors import (
    CursorNotFound,
    InternalError,
    InvalidArgument,
    LLMAuthentication,
    LLMUnavailable,
    ModelNotFound,
    PermissionDenied,
    ProviderNameTaken,
    ProviderNotFound,
    SecretRequired,
    ValidationFailed,
)
from tests.contract.providers.llm_gateway.llm_prompts import prompt, user
from tests.contract.rpc.llm_gateway.conftest import ANN, BEN
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Fault

NOBODY = "provider-00000000-0000-4000-8000-000000000000"


async def create(gateway, vendor, name: str = "mine", **rest) -> provider_pb2.Provider:
    fields = {"api_key": "sk-own", "base_url": vendor.base_url, "provider_type": "openai", **rest}
    sent = provider_pb2.Provider(name=name, **fields)
    return (await gateway.providers.CreateProvider(pb.CreateProviderRequest(provider=sent), timeout=30)).provider


async def test_a_provider_is_kept_without_its_key(start, openai):
    gateway = await start()

    made = await create(gateway, openai)

    assert made.id.startswith("provider-")
    assert made.provider_category == model_pb2.PROVIDER_CATEGORY_BYOK
    assert made.HasField("last_synced")
    read = (await gateway.providers.GetProvider(pb.GetProviderRequest(provider_id=made.id), timeout=30)).provider
    assert read == made
    for field in ("api_key", "access_key"):
        assert not made.HasField(field)
    assert b"sk-own" not in made.SerializeToString()


async def test_its_models_are_offered_to_its_organization_alone(start, openai):
    gateway = await start()
    await create(gateway, openai)
    openai.keys = {"sk-own"}
    asked = gen.GenerateRequest(prompt=prompt(user("hi"), model="mine/gpt-4o-mini"))

    got = await gateway.generations.Generate(asked, timeout=30)
    assert got.generation.parts[0].text.text == "You said: hi"
    listed = await gateway.models.ListModels(mod.ListModelsRequest(provider_name="mine"), timeout=30)
    assert [model.handle for model in listed.models] == ["mine/gpt-4.1", "mine/gpt-4o-mini"]
    with gateway.as_actor(BEN):
        with pytest.raises(ModelNotFound):
            await gateway.generations.Generate(asked, timeout=30)
        others = await gateway.models.ListModels(mod.ListModelsRequest(), timeout=30)
        assert [model.handle for model in others.models] == ["builtin/rules"]


async def test_a_taken_name_is_refused(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    await create(gateway, openai)

    with pytest.raises(ProviderNameTaken):
        await create(gateway, openai)
    with pytest.raises(ProviderNameTaken):
        await create(gateway, openai, name="openai")
    with gateway.as_actor(BEN):
        await create(gateway, openai)


async def test_nonsense_is_refused(start, openai):
    gateway = await start()

    with pytest.raises(InvalidArgument, match="provider type"):
        await create(gateway, openai, provider_type="nonsense")
    with pytest.raises(ValidationFailed):
        await create(gateway, openai, name="")
    with pytest.raises(ValidationFailed):
        await create(gateway, openai, name="a/b")
    with pytest.raises(ValidationFailed):
        await create(gateway, openai, base_url="file:///etc/passwd")
    with pytest.raises(LLMAuthentication):
        await create(gateway, openai, api_key="", base_url="")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9", "localhost", "169.254.169.254", "[::1]:80", "[::ffff:10.0.0.1]", "0.0.0.0"]
)
async def test_an_organization_cannot_make_the_gateway_call_its_own_network(start, openai, host):
    gateway = await start(dev_mode=False)

    with pytest.raises(InvalidArgument, match="public internet"):
        await create(gateway, openai, base_url=f"http://{host}/v1")


async def test_a_masked_update_changes_what_it_names(start, openai):
    gateway = await start()
    made = await create(gateway, openai, region="eu")
    other = provider_pb2.Provider(name="renamed", api_key="sk-new", region="us")

    request = pb.UpdateProviderRequest(provider_id=made.id, provider=other, update_mask=FieldMask(paths=["api_key"]))
    changed = (await gateway.providers.UpdateProvider(request, timeout=30)).provider
    assert (changed.name, changed.region) == ("mine", "eu")
    openai.keys = {"sk-new"}
    await gateway.providers.CheckProvider(pb.CheckProviderRequest(provider_id=made.id), timeout=30)

    request.update_mask.paths[:] = ["region"]
    request.provider.ClearField("region")
    cleared = (await gateway.providers.UpdateProvider(request, timeout=30)).provider
    assert not cleared.HasField("region")
    for path in ("nonsense", "name", "id"):
        request.update_mask.paths[:] = [path]
        with pytest.raises(InvalidArgument, match=path):
            await gateway.providers.UpdateProvider(request, timeout=30)


async def update(gateway, made, *paths, **values):
    request = pb.UpdateProviderRequest(
        provider_id=made.id, provider=provider_pb2.Provider(**values), update_mask=FieldMask(paths=paths or [*values])
    )
    return (await gateway.providers.UpdateProvider(request, timeout=30)).provider


@pytest.mark.parametrize("method", ["CheckProvider", "RefreshProvider"])
async def test_a_key_does_not_follow_a_new_address(start, openai, method):
    gateway = await start()
    made = await create(gateway, openai, region="eu")
    async with OpenAIServer() as thief:
        for change in ({"base_url": thief.base_url}, {"base_url": thief.base_url, "region": "us"}):
            with pytest.raises(SecretRequired, match="api_key"):
                await update(gateway, made, **change)
        await getattr(gateway.providers, method)(getattr(pb, f"{method}Request")(provider_id=made.id), timeout=30)
        assert thief.requests == []

        moved = await update(gateway, made, base_url=thief.base_url, api_key="sk-new")
        assert moved.base_url == thief.base_url
        await gateway.providers.CheckProvider(pb.CheckProviderRequest(provider_id=made.id), timeout=30)
        assert {request.headers["authorization"] for request in thief.requests} == {"Bearer sk-new"}


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace("http://", "https://"),
        lambda url: url.replace("127.0.0.1", "localhost"),
        lambda url: url.replace("127.0.0.1", "127.0.0.1.nip.example"),
        lambda url: url.replace("http://127.0.0.1", "http://127.0.0.1@127.0.0.2"),
        lambda url: url.rpartition(":")[0] + ":1/v1",
        lambda url: url.rpartition(":")[0] + "/v1",
        lambda url: "http://[::1]/v1",
        lambda url: "",
    ],
)
async def test_every_other_origin_needs_the_key_again(start, openai, change):
    gateway = await start()
    made = await create(gateway, openai)

    with pytest.raises(SecretRequired):
        await update(gateway, made, "base_url", base_url=change(openai.base_url))


async def test_the_same_origin_keeps_its_keys(start, openai):
    gateway = await start()
    made = await create(gateway, openai, access_key="second")

    for same in (openai.base_url + "/other", openai.base_url + "/"):
        assert (await update(gateway, made, base_url=same)).base_url == same
    with pytest.raises(SecretRequired, match="access_key"):
        await update(gateway, made, base_url="http://127.0.0.1:1/v1", api_key="sk-new")
    cleared = await update(
        gateway, made, "base_url", "api_key", "access_key", base_url="http://127.0.0.1:1/v1", api_key="sk-new"
    )
    assert cleared.base_url == "http://127.0.0.1:1/v1"


async def test_a_region_is_an_address_where_the_vendor_is_called_in_it(start):
    gateway = await start()
    own = {"provider_type": "bedrock", "api_key": "secret", "access_key": "AKIA", "region": "us-east-1"}
    sent = provider_pb2.Provider(name="aws", **own)
    made = (await gateway.providers.CreateProvider(pb.CreateProviderRequest(provider=sent), timeout=30)).provider

    with pytest.raises(SecretRequired):
        await update(gateway, made, region="cn-north-1")


async def test_credentials_are_checked_at_the_vendor(start, openai):
    gateway = await start()
    openai.keys = {"right"}

    def check(key: str):
        request = pb.CheckCredentialsRequest(provider_type="openai", api_key=key, base_url=openai.base_url)
        return gateway.providers.CheckCredentials(request, timeout=30)

    assert "3 models" in (await check("right")).message
    with pytest.raises(LLMAuthentication) as caught:
        await check("wrong")
    assert "sk-secret" not in str(caught.value)


async def test_a_reader_tries_no_credentials(start, openai):
    gateway = await start()
    made = await create(gateway, openai)
    reader = Actor(ANN.organization_id, "user-r", frozenset({"read"}))
    asked = len(openai.requests)

    with gateway.as_actor(reader):
        with pytest.raises(PermissionDenied, match="write"):
            await gateway.providers.CheckProvider(pb.CheckProviderRequest(provider_id=made.id), timeout=30)
        request = pb.CheckCredentialsRequest(provider_type="openai", api_key="k", base_url=openai.base_url)
        with pytest.raises(PermissionDenied, match="write"):
            await gateway.providers.CheckCredentials(request, timeout=30)
        await gateway.providers.GetProvider(pb.GetProviderRequest(provider_id=made.id), timeout=30)
    assert len(openai.requests) == asked


async def test_a_refresh_lists_models_again(start, openai):
    gateway = await start()
    made = await create(gateway, openai)
    openai.models.append({"id": "gpt-5-new"})

    await gateway.providers.RefreshProvider(pb.RefreshProviderRequest(provider_id=made.id), timeout=30)

    listed = await gateway.models.ListModels(mod.ListModelsRequest(provider_name="mine"), timeout=30)
    assert "mine/gpt-5-new" in [model.handle for model in listed.models]


async def test_a_deleted_provider_is_gone(start, openai):
    gateway = await start()
    made = await create(gateway, openai)

    gone = await gateway.providers.DeleteProvider(pb.DeleteProviderRequest(provider_id=made.id), timeout=30)
    assert gone.message == f"Provider id={made.id} successfully deleted"
    with pytest.raises(ModelNotFound):
        await gateway.models.GetModel(mod.GetModelRequest(handle="mine/gpt-4o-mini"), timeout=30)


@pytest.mark.parametrize(
    "method", ["GetProvider", "UpdateProvider", "DeleteProvider", "CheckProvider", "RefreshProvider"]
)
async def test_another_organizations_provider_does_not_exist(start, openai, method):
    gateway = await start()
    made = await create(gateway, openai)
    rest = {"provider": provider_pb2.Provider(region="x")} if method == "UpdateProvider" else {}
    if rest:
        rest["update_mask"] = FieldMask(paths=["region"])

    for actor, provider_id in ((BEN, made.id), (None, NOBODY)):
        request = getattr(pb, f"{method}Request")(provider_id=provider_id, **rest)
        if actor:
            with gateway.as_actor(actor), pytest.raises(ProviderNotFound):
                await getattr(gateway.providers, method)(request, timeout=30)
        else:
            with pytest.raises(ProviderNotFound):
                await getattr(gateway.providers, method)(request, timeout=30)


async def test_providers_are_listed_in_pages(start, openai):
    gateway = await start()
    ids = [(await create(gateway, openai, name=f"p{at}")).id for at in range(5)]

    async def page(**rest):
        found = await gateway.providers.ListProviders(pb.ListProvidersRequest(**rest), timeout=30)
        return [provider.id for provider in found.providers]

    assert await page() == ids[::-1]
    assert await page(limit=2) == ids[:2:-1]
    assert await page(limit=2, after=ids[3]) == [ids[2], ids[1]]
    assert await page(name="p1") == [ids[1]]
    assert await page(provider_type="anthropic") == []
    with pytest.raises(CursorNotFound):
        await page(after=NOBODY)
    with gateway.as_actor(BEN):
        assert await page() == []


async def test_nothing_configured_means_the_rules_and_says_so(start):
    gateway = await start()

    got = await gateway.models.GetDefaultModel(mod.GetDefaultModelRequest(), timeout=30)

    assert (got.handle, got.language_model, got.embedding_handle) == (
        "builtin/rules",
        False,
        "builtin/use-multilingual",
    )
    assert "NOT a language model" in got.banner
    model = (await gateway.models.GetModel(mod.GetModelRequest(), timeout=30)).model
    assert (model.handle, model.capabilities.language_model, model.capabilities.tools) == ("builtin/rules", False, True)


async def test_the_default_follows_what_is_configured(start, openai, anthropic):
    keys = {"openai_api_key": "k", "openai_base_url": openai.base_url}
    claude = {"anthropic_api_key": "k", "anthropic_base_url": anthropic.base_url}
    for settings, handle in (
        (
            {**keys, **claude, "default_llm_handle": "anthropic/claude-sonnet-4-5-20250929"},
            "anthropic/claude-sonnet-4-5-20250929",
        ),
        ({**keys, **claude}, "openai/gpt-4o-mini"),
        ({"openai_base_url": openai.base_url}, "openai/gpt-4o-mini"),
        (claude, "anthropic/claude-haiku-4-5-20251001"),
        ({"ollama_base_url": openai.url}, "ollama/gpt-4o-mini"),
    ):
        gateway = await start(**settings)
        got = await gateway.models.GetDefaultModel(mod.GetDefaultModelRequest(), timeout=30)
        assert got.handle == handle
        assert got.language_model
        assert handle in got.banner


async def test_a_vendor_that_is_down_is_never_replaced_by_rules(start):
    async with OpenAIServer() as vendor:
        address = vendor.base_url
    gateway = await start(openai_api_key="k", openai_base_url=address, attempts=1)

    got = await gateway.models.GetDefaultModel(mod.GetDefaultModelRequest(), timeout=30)
    assert got.handle.startswith("openai/")
    asked = gen.GenerateRequest(prompt=prompt(user("hi"), model=got.handle))
    with pytest.raises(LLMUnavailable):
        await gateway.generations.Generate(asked, timeout=30)


async def test_models_are_listed_as_v1_listed_them(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)

    found = await gateway.models.ListModels(mod.ListModelsRequest(), timeout=30)
    assert [model.handle for model in found.models] == ["builtin/rules", "openai/gpt-4.1", "openai/gpt-4o-mini"]
    model = found.models[1]
    assert (model.name, model.model_endpoint_type) == ("gpt-4.1", "openai")
    assert (model.context_window, model.max_context_window) == (1_047_576, 1_047_576)
    assert model.provider_category == model_pb2.PROVIDER_CATEGORY_BASE
    byok = mod.ListModelsRequest(provider_category=[model_pb2.PROVIDER_CATEGORY_BYOK])
    assert not (await gateway.models.ListModels(byok, timeout=30)).models
    typed = await gateway.models.ListModels(mod.ListModelsRequest(provider_type="builtin"), timeout=30)
    assert [model.handle for model in typed.models] == ["builtin/rules"]


async def test_embedders_are_listed(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)

    found = await gateway.models.ListEmbeddingModels(mod.ListEmbeddingModelsRequest(), timeout=30)

    assert [(model.handle, model.embedding_dim) for model in found.models] == [
        ("builtin/use-multilingual", 512),
        ("openai/text-embedding-3-small", 1536),
    ]
    got = await gateway.models.GetEmbeddingModel(mod.GetEmbeddingModelRequest(), timeout=30)
    assert (got.model.handle, got.model.embedding_dim) == ("builtin/use-multilingual", 512)
    with pytest.raises(ModelNotFound):
        await gateway.models.GetEmbeddingModel(mod.GetEmbeddingModelRequest(handle="openai/nope"), timeout=30)
    with pytest.raises(ModelNotFound):
        await gateway.models.GetEmbeddingModel(mod.GetEmbeddingModelRequest(handle="openai/gpt-4.1"), timeout=30)


async def test_a_vendor_embeds_each_text_once(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say(Fault(status=500))

    async def embed(*texts: str):
        request = emb.EmbedRequest(model="openai/text-embedding-3-small", texts=texts)
        return await gateway.embeddings.Embed(request, timeout=30)

    got = await embed("a", "b", "a")
    assert got.model == "openai/text-embedding-3-small"
    assert list(got.embeddings[0].values) == list(got.embeddings[2].values) != list(got.embeddings[1].values)
    assert math.isclose(sum(value**2 for value in got.embeddings[0].values), 1, rel_tol=1e-5)
    await asyncio.gather(embed("c"), embed("c", "a"))
    sent = [
        text for request in openai.requests if request.path.endswith("embeddings") for text in request.body["input"]
    ]
    assert sorted(sent) == ["a", "a", "b", "b", "c"]  # a and b twice: the first answer was a failure


async def test_embedding_with_an_unknown_model_is_refused(start):
    gateway = await start()

    for handle in ("nobody/x", "builtin/rules", "builtin/nope"):
        with pytest.raises(ModelNotFound):
            await gateway.embeddings.Embed(emb.EmbedRequest(model=handle, texts=["a"]), timeout=30)
    with pytest.raises(ValidationFailed):
        await gateway.embeddings.Embed(emb.EmbedRequest(), timeout=30)


async def test_a_trace_shows_the_prompt_and_the_answer(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, provider_trace=True)
    booked = gen.Attribution(step_id="step-1", agent_id="agent-1", purpose=gen.CALL_PURPOSE_STEP)
    asked = prompt(user("hi"), model="openai/gpt-4o-mini", attribution=booked)
    await gateway.generations.Generate(gen.GenerateRequest(prompt=asked), timeout=30)

    request = tr.GetProviderTraceRequest(step_id="step-1")
    got = (await gateway.traces.GetProviderTrace(request, timeout=30)).trace
    assert json.loads(got.request_json) == openai.requests[-1].body, "what the vendor got"
    assert json.loads(got.response_json)["parts"] == [{"type": "Text", "text": "You said: hi", "signature": None}]
    assert (got.agent_id, got.call_type) == ("agent-1", gen.CALL_PURPOSE_STEP)
    with gateway.as_actor(BEN):
        assert not (await gateway.traces.GetProviderTrace(request, timeout=30)).HasField("trace")


async def test_providers_stay_usable_while_the_encryption_key_is_renewed(start, openai):
    """The documented steps: the coming key is known to all, then seals, then the former one is taken away."""
    openai.keys = {"sk-own"}
    first = await start(encryption_key="former", encryption_keys_also=("coming",))
    asked = pb.CheckProviderRequest(provider_id=(await create(first, openai)).id)

    second = await start(encryption_key="coming", encryption_keys_also=("former",), stores=first.stores)
    await second.providers.CheckProvider(asked, timeout=30)
    change = pb.UpdateProviderRequest(provider_id=asked.provider_id, update_mask={"paths": ["api_key"]})
    change.provider.api_key = "sk-own"
    await second.providers.UpdateProvider(change, timeout=30)
    with first.as_actor(ANN):
        await first.providers.CheckProvider(asked, timeout=30)  # a replica that is not restarted yet

    third = await start(encryption_key="coming", stores=first.stores)
    await third.providers.CheckProvider(asked, timeout=30)
    lost = await start(encryption_key="another", stores=first.stores)
    with pytest.raises(InternalError):
        await lost.providers.CheckProvider(asked, timeout=30)


async def test_a_list_is_kept_while_the_vendor_is_away_and_renewed_when_it_is_back(start, openai):
    gateway = await start(models_ttl_seconds=0.01)
    await create(gateway, openai)
    request = mod.ListModelsRequest(provider_name="mine")

    async def listed() -> list[str]:
        return [model.name for model in (await gateway.models.ListModels(request, timeout=30)).models]

    before = await listed()
    assert before == ["gpt-4.1", "gpt-4o-mini"]
    openai.keys = {"nobody's"}
    for _ in range(4):
        await asyncio.sleep(0.02)
        assert await listed() == before, "stale is better than nothing"
    openai.keys = set()
    openai.models.append({"id": "gpt-5-new"})

    async with asyncio.timeout(15):
        while "gpt-5-new" not in await listed():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_list_is_asked_for_once_and_believed_for_a_while(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    request = mod.ListModelsRequest()

    await asyncio.gather(*(gateway.models.ListModels(request, timeout=30) for _ in range(20)))
    assert len([each for each in openai.requests if each.path.endswith("/models")]) == 1


async def test_checked_credentials_leave_no_list_behind(start, openai):
    gateway = await start()
    asked = pb.CheckCredentialsRequest(provider_type="openai", api_key="sk-tried", base_url=openai.base_url)
    await gateway.providers.CheckCredentials(asked, timeout=30)

    assert (await gateway.models.ListModels(mod.ListModelsRequest(), timeout=30)).models[0].handle == "builtin/rules"
    with pytest.raises(ModelNotFound):
        await gateway.models.GetModel(mod.GetModelRequest(handle="openai/gpt-4o-mini"), timeout=30)


async def test_a_check_at_an_inner_address_is_refused_and_control(start, openai):
    asked = pb.CheckCredentialsRequest(provider_type="openai", api_key="k", base_url=openai.base_url)
    gateway = await start(dev_mode=False)
    with pytest.raises(InvalidArgument, match="public internet"):
        await gateway.providers.CheckCredentials(asked, timeout=30)
    assert openai.requests == []

    gateway = await start(dev_mode=False, provider_allowed_hosts=("127.0.0.0/8",))
    await gateway.providers.CheckCredentials(asked, timeout=30)
    assert len(openai.requests) == 1
