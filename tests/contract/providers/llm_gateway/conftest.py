"""Every provider over its own SDK, against a fake vendor on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from letta_llm_gateway.domain.providers import Account, Provider
from letta_llm_gateway.providers.builtin import BuiltinProvider
from letta_llm_gateway.providers.registry import ProviderFactory
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.google_server import GoogleServer
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Vendor

WIRES = ("openai", "openai-responses", "anthropic", "google_ai", "ollama", "vllm", "azure")
SERVERS: dict[str, type[Vendor]] = {"anthropic": AnthropicServer, "google_ai": GoogleServer}


@dataclass
class Subject:
    """A provider and the vendor that it speaks to."""

    provider: Provider
    vendor: Vendor
    kind: str


@pytest.fixture(params=WIRES)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server = SERVERS.get(request.param, OpenAIServer)()
    factory = ProviderFactory(BuiltinProvider())
    async with server as vendor:
        account = Account(
            f"my-{request.param}", request.param, "sk-test", vendor.url if request.param == "azure" else vendor.base_url
        )
        yield Subject(await factory.provider(account), vendor, request.param)
        await factory.close()
