"""The llm_gateway service over both transports, with fake vendors on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

from letta.llm.v1.budget_service_pb2_grpc import BudgetServiceStub
from letta.llm.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from letta.llm.v1.generation_service_pb2_grpc import GenerationServiceStub
from letta.llm.v1.model_service_pb2_grpc import ModelServiceStub
from letta.llm.v1.provider_service_pb2_grpc import ProviderServiceStub
from letta.llm.v1.trace_service_pb2 import ProviderTrace
from letta.llm.v1.trace_service_pb2_grpc import TraceServiceStub
from letta.llm.v1.usage_service_pb2_grpc import UsageServiceStub
from letta_common.actor import Actor, Request, acting_as, bind_request
from letta_llm_gateway.domain.accounting.usage import BookedCall
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.wiring import GatewayStores, assemble
from letta_rpc.service import Deps
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.llm_gateway.stores import FakeBudgetStore, FakeProviderStore, FakeUsageStore
from tests.fakes.openai_server import OpenAIServer
from tests.support.rpc import DEFAULT_ORGANIZATION, DEFAULT_USER, Identities, running


class Books(FakeUsageStore):
    """Books in memory that say when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    async def create(self, records: Sequence[BookedCall], traces: Sequence[ProviderTrace]) -> None:
        await super().create(records, traces)
        self.written.set()


ANN = Actor(DEFAULT_ORGANIZATION, DEFAULT_USER)
BEN = Actor("org-b", "user-b")


@dataclass
class Gateway:
    """A running gateway and what it is made of."""

    channel: grpc.aio.Channel
    identities: Identities
    books: Books
    stores: GatewayStores

    def as_actor(self, actor: Actor) -> AbstractContextManager[None]:
        """Let calls inside come from this actor."""
        return acting_as(self.identities.sign(actor))

    @property
    def generations(self) -> Any:
        return GenerationServiceStub(self.channel)

    @property
    def models(self) -> Any:
        return ModelServiceStub(self.channel)

    @property
    def providers(self) -> Any:
        return ProviderServiceStub(self.channel)

    @property
    def embeddings(self) -> Any:
        return EmbeddingServiceStub(self.channel)

    @property
    def usage(self) -> Any:
        return UsageServiceStub(self.channel)

    @property
    def budgets(self) -> Any:
        return BudgetServiceStub(self.channel)

    @property
    def traces(self) -> Any:
        return TraceServiceStub(self.channel)


Start = Callable[..., Any]


@pytest.fixture(params=["local", "network"])
async def start(request: pytest.FixtureRequest, monkeypatch, tmp_path) -> AsyncIterator[Start]:
    """Return a function that starts a gateway with settings and yields it acting as Ann."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Gateway:
            chosen: dict[str, Any] = {
                "home": tmp_path,
                "ollama_probe": False,
                "dev_mode": True,
                "retry_pause_seconds": 0.01,
                **settings,
            }
            books = Books()
            stores = chosen.pop("stores", None) or GatewayStores(FakeProviderStore(), books, FakeBudgetStore(books))
            service = assemble(LLMGatewaySettings(**chosen), Deps(), stores)
            identities = Identities()
            channel = await stack.enter_async_context(running(service, request.param, identities=identities))
            gateway = Gateway(channel, identities, books, stores)
            bind_request(Request(signed_actor=identities.sign(ANN)))  # for the rest of the test
            return gateway

        yield begin


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as vendor:
        yield vendor


@pytest.fixture
async def anthropic() -> AsyncIterator[AnthropicServer]:
    async with AnthropicServer() as vendor:
        yield vendor
