"""Every provider over its own SDK, against a fake vendor on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from letta_llm_gateway.domain.catalogue.providers import Account, Provider
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.bedrock_server import KEYS, BedrockServer
from tests.fakes.google_server import GoogleServer
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.vertex_server import VertexServer, service_account
from tests.fakes.wire import Vendor

WIRES = ("openai", "openai-responses", "anthropic", "google_ai", "google_vertex", "ollama", "vllm", "azure", "bedrock")
SERVERS: dict[str, type[Vendor]] = {
    "anthropic": AnthropicServer,
    "google_ai": GoogleServer,
    "google_vertex": VertexServer,
    "bedrock": BedrockServer,
}
SAME_WIRE = {"google_vertex": "google_ai"}


@dataclass
class Subject:
    """A provider and the vendor that it speaks to."""

    provider: Provider
    vendor: Vendor
    kind: str
    """The wire that it speaks."""


@pytest.fixture(params=WIRES)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server = SERVERS.get(request.param, OpenAIServer)()
    factory = ProviderFactory(BuiltinProvider())
    async with server as vendor:
        provider = await factory.provider(account(request.param, vendor))
        if isinstance(vendor, VertexServer):  # the token is asked for before the test begins
            await provider.models()
            vendor.requests.clear()
            vendor.asked.clear()
        yield Subject(provider, vendor, SAME_WIRE.get(request.param, request.param))
        await factory.close()


def account(kind: str, vendor: Vendor) -> Account:
    """Return the account of a provider of this kind at a fake vendor."""
    name = f"my-{kind}"
    if isinstance(vendor, BedrockServer):
        vendor.secrets = KEYS
        return Account(name, kind, KEYS["AKIATEST"], vendor.url, access_key="AKIATEST", region="us-east-1")
    if isinstance(vendor, VertexServer):
        key = service_account(f"{vendor.url}/token")
        return Account(name, "google_vertex", key, vendor.url, region="europe-west1")
    return Account(name, kind, "sk-test", vendor.url if kind == "azure" else vendor.base_url)
