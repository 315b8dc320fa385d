"""Vertex AI: whose credentials are used, where tokens come from, and that Claude is there too."""

from __future__ import annotations

import json

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1.generation_service_pb2 import Prompt
from letta_common.egress import AddressGuard
from letta_common.errors import CapabilityMissing, InvalidArgument, LLMAuthentication, LLMUnavailable
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.domain.generation.streams import Assembler
from letta_llm_gateway.providers.http import Clients
from letta_llm_gateway.providers.parts import text_part
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.providers.vendors import vertex
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.wiring import base_accounts
from tests.fakes.vertex_server import TOKEN, VertexServer, service_account
from tests.support.prompts import kept

HI = Prompt(messages=kept(m.Message(role=m.MESSAGE_ROLE_USER, parts=[m.ContentPart(text=m.TextContent(text="hi"))])))
CLAUDE = "claude-sonnet-4-5@20250929"


@pytest.fixture
async def vendor():
    async with VertexServer() as server:
        yield server


def account(vendor: VertexServer, key: str, **rest: str) -> Account:
    return Account("mine", "google_vertex", key, vendor.url, region="europe-west1", **rest)


async def asked(of: Account, model: str = "gemini-2.5-flash") -> object:
    factory = ProviderFactory(BuiltinProvider(), Clients(AddressGuard(["127.0.0.1"])))
    try:
        return await (await factory.provider(of)).generate(Call(model, HI))
    finally:
        await factory.close()


async def test_a_service_account_gets_a_token_once_and_speaks_for_its_project(vendor):
    of = account(vendor, service_account(f"{vendor.url}/token"))
    factory = ProviderFactory(BuiltinProvider())
    provider = await factory.provider(of)
    for _ in range(2):
        await provider.generate(Call("gemini-2.5-flash", HI))
    await factory.close()

    assert vendor.tokens == 1
    sent = vendor.requests[-1]
    assert sent.path.startswith("/v1beta1/projects/test-project/locations/europe-west1/publishers/google/models/gemini")
    assert sent.headers["authorization"] == f"Bearer {TOKEN}"


async def test_claude_answers_and_streams_with_the_same_account(vendor):
    factory = ProviderFactory(BuiltinProvider())
    provider = await factory.provider(account(vendor, service_account(f"{vendor.url}/token")))
    vendor.say("At once.", "In pieces.")

    assert (await provider.generate(Call(CLAUDE, HI))).parts == [text_part("At once.")]
    assembler = Assembler()
    async for event in provider.stream(Call(CLAUDE, HI)):
        assembler.feed(event)
    await factory.close()

    assert assembler.parts() == [text_part("In pieces.")]
    assert [request.path.rpartition(":")[2] for request in vendor.requests[-2:]] == ["rawPredict", "streamRawPredict"]


async def test_an_api_key_speaks_with_gemini_and_not_with_claude(vendor):
    await asked(account(vendor, "AIza-key"))

    assert vendor.requests[-1].headers["x-goog-api-key"] == "AIza-key"
    with pytest.raises(CapabilityMissing, match="JSON of a service account"):
        await asked(account(vendor, "AIza-key"), CLAUDE)


async def test_an_organization_cannot_name_the_place_that_gives_tokens(vendor, monkeypatch):
    nobody = "http://127.0.0.1:9/token"
    monkeypatch.setattr(vertex, "_TOKENS", nobody)  # stands for Google's own, which no test asks
    of = account(vendor, service_account(f"{vendor.url}/token"), organization_id="org-a")

    with pytest.raises(LLMUnavailable, match="token service"):
        await asked(of)
    assert (vendor.tokens, vendor.requests) == (0, [])


async def test_control_the_deployment_may_name_it(vendor):
    await asked(account(vendor, service_account(f"{vendor.url}/token")))
    assert vendor.tokens == 1


@pytest.mark.parametrize("owner", ["", "org-a"])
@pytest.mark.parametrize("kind", ["external_account", "authorized_user", "impersonated_service_account", ""])
async def test_credentials_that_run_programs_or_ask_elsewhere_are_refused(vendor, kind, owner):
    with pytest.raises(LLMAuthentication, match="not the JSON of a service account"):
        await asked(account(vendor, service_account(f"{vendor.url}/token", type=kind), organization_id=owner))
    assert vendor.requests == []


@pytest.mark.parametrize(
    "key", ["{", "{}", '{"type": "service_account"}', '{"type": "service_account", "private_key": 1}']
)
async def test_what_is_no_service_account_is_refused(vendor, key):
    with pytest.raises(LLMAuthentication, match="service account"):
        await asked(account(vendor, key))


async def test_an_organization_cannot_use_what_the_machine_may_do(vendor, monkeypatch, tmp_path):
    kept = tmp_path / "adc.json"
    kept.write_text(service_account(f"{vendor.url}/token"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(kept))

    with pytest.raises(LLMAuthentication, match="has no key"):
        await asked(account(vendor, "", access_key="test-project", organization_id="org-a"))
    assert vendor.requests == []


@pytest.mark.parametrize("model", ["gemini-2.5-flash", CLAUDE])
async def test_control_the_deployments_own_account_uses_it(vendor, monkeypatch, tmp_path, model):
    kept = tmp_path / "adc.json"
    kept.write_text(service_account(f"{vendor.url}/token"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(kept))

    await asked(account(vendor, "", access_key="test-project"), model)
    assert vendor.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("location", ["evil.example/", "europe-west1.evil.example", "a b", "#"])
async def test_a_location_that_is_none_is_refused_before_it_becomes_an_address(location):
    with pytest.raises(InvalidArgument, match="europe-west1"):
        await asked(Account("mine", "google_vertex", "key", region=location, organization_id="org-a"))


async def test_a_project_that_is_none_is_refused(vendor):
    told = json.loads(service_account(f"{vendor.url}/token"))
    with pytest.raises(InvalidArgument, match="project"):
        await asked(account(vendor, json.dumps({**told, "project_id": "../../x"})))


def test_a_project_and_a_location_offer_vertex(tmp_path):
    only = LLMGatewaySettings(home=tmp_path, google_cloud_project="p")
    assert "google_vertex" not in {row.name for row in base_accounts(only)}, "many machines name a project"
    settings = LLMGatewaySettings(home=tmp_path, google_cloud_project="p", google_cloud_location="europe-west4")

    [found] = [row for row in base_accounts(settings) if row.provider_type == "google_vertex"]
    assert (found.access_key, found.region, found.api_key) == ("p", "europe-west4", "")
