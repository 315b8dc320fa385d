"""Builds the llm_gateway service from its parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from letta.llm.v1 import (
    embedding_service_pb2_grpc,
    generation_service_pb2_grpc,
    model_service_pb2_grpc,
    provider_service_pb2_grpc,
    trace_service_pb2_grpc,
)
from letta_common.db import Database, DatabaseOptions
from letta_common.egress import AddressGuard
from letta_common.migrations import upgrade
from letta_common.service import Deps, Service, nothing
from letta_common.settings import kept_secret
from letta_llm_gateway.domain import models
from letta_llm_gateway.domain.accounts import Accounts, ProviderStore
from letta_llm_gateway.domain.budgets import Budgets
from letta_llm_gateway.domain.embeddings import Embeddings
from letta_llm_gateway.domain.generations import Generations, Options
from letta_llm_gateway.domain.models import Models
from letta_llm_gateway.domain.providers import Account
from letta_llm_gateway.domain.resilience import Retry
from letta_llm_gateway.domain.streams import Limits
from letta_llm_gateway.domain.usage import UsageStore, UsageWriter
from letta_llm_gateway.providers import probe
from letta_llm_gateway.providers.arguments import checked
from letta_llm_gateway.providers.builtin import BuiltinProvider
from letta_llm_gateway.providers.http import Clients
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.providers.vault import KeyVault
from letta_llm_gateway.servicers.embeddings import EmbeddingServicer
from letta_llm_gateway.servicers.generations import GenerationServicer
from letta_llm_gateway.servicers.models import ModelServicer
from letta_llm_gateway.servicers.providers import ProviderServicer
from letta_llm_gateway.servicers.traces import TraceServicer
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.store.accounts import SqlProviderStore
from letta_llm_gateway.store.usage import SqlUsageStore

SCHEMA = "llm"
_KEYED = ("groq", "together", "deepseek", "xai", "openrouter", "mistral")


async def build(settings: LLMGatewaySettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    dsn = settings.database_url.get_secret_value()
    await upgrade(dsn, package="letta_llm_gateway", schema=SCHEMA, extensions=())
    options = DatabaseOptions(pool_size=settings.pool_size, application_name="letta-llm-gateway")
    db = await Database.open(dsn, schema=SCHEMA, options=options)
    return assemble(settings, deps, SqlProviderStore(db), SqlUsageStore(db), db.close)


def assemble(
    settings: LLMGatewaySettings,
    deps: Deps,
    providers: ProviderStore,
    books: UsageStore,
    close_stores: Callable[[], Awaitable[None]] = nothing,
) -> Service:
    """Return the service over these stores."""
    guard = _guard(settings)
    accounts = Accounts(providers, KeyVault(_secret(settings)), guard.check_url, deps.clock)
    factory = ProviderFactory(BuiltinProvider(), Clients(guard))
    catalogue = Models(
        base_accounts(settings),
        accounts,
        factory,
        probe=probe.ollama if settings.ollama_probe and not settings.ollama_base_url else probe.nothing,
        clock=deps.clock,
        options=models.Options(
            settings.default_llm_handle, settings.default_embedding_handle, list_seconds=settings.models_ttl_seconds
        ),
    )
    usage = UsageWriter(books, deps.clock, trace_days=settings.provider_trace_days if settings.provider_trace else 0)
    generations = Generations(
        catalogue,
        usage,
        budgets=Budgets(books, deps.clock, limit_microdollars=round(settings.budget_dollars * 1e6)),
        checked=lambda raw, tool, vendor: checked(raw, tool=tool, vendor=vendor),
        clock=deps.clock,
        options=_options(settings),
    )

    async def close() -> None:
        await usage.close()
        await factory.close()
        await close_stores()

    return Service(
        name="llm_gateway",
        servicers=(
            (
                generation_service_pb2_grpc.add_GenerationServiceServicer_to_server,
                GenerationServicer(generations, traced=settings.provider_trace),
            ),
            (
                embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server,
                EmbeddingServicer(Embeddings(catalogue, retry=_options(settings).retry)),
            ),
            (model_service_pb2_grpc.add_ModelServiceServicer_to_server, ModelServicer(catalogue)),
            (
                provider_service_pb2_grpc.add_ProviderServiceServicer_to_server,
                ProviderServicer(accounts, catalogue),
            ),
            (trace_service_pb2_grpc.add_TraceServiceServicer_to_server, TraceServicer(books, usage)),
        ),
        start=usage.start,
        close=close,
    )


def _guard(settings: LLMGatewaySettings) -> AddressGuard:
    anywhere = ("*",) if settings.private_addresses or settings.dev_mode else ()
    return AddressGuard((*settings.provider_allowed_hosts, *anywhere))


def _secret(settings: LLMGatewaySettings) -> bytes:
    given = settings.encryption_key.get_secret_value()
    return given.encode() if given else kept_secret(settings.home / "encryption_key")


def base_accounts(settings: LLMGatewaySettings) -> list[Account]:
    """Return the deployment's own accounts, as far as they are configured."""
    found = [Account("builtin", "builtin")]
    key = settings.openai_api_key.get_secret_value()
    if key or settings.openai_base_url:
        kind = "openai-responses" if settings.openai_responses else "openai"
        found.append(Account("openai", kind, key, settings.openai_base_url))
    key = settings.anthropic_api_key.get_secret_value()
    if key:
        found.append(Account("anthropic", "anthropic", key, settings.anthropic_base_url))
    if key := settings.gemini_api_key.get_secret_value():
        found.append(Account("google_ai", "google_ai", key))
    if settings.bedrock_region:
        key, address = settings.bedrock_api_key.get_secret_value(), settings.bedrock_base_url
        found.append(Account("bedrock", "bedrock", key, address, region=settings.bedrock_region))
    if settings.ollama_base_url:
        found.append(Account("ollama", "ollama", base_url=settings.ollama_base_url))
    for name in _KEYED:
        key = getattr(settings, f"{name}_api_key").get_secret_value()
        if key:
            found.append(Account(name, name, key))
    for name, kind in (("vllm", "vllm"), ("lmstudio", "lmstudio_openai")):
        if address := getattr(settings, f"{name}_base_url"):
            found.append(Account(name, kind, base_url=address))
    return found


def _options(settings: LLMGatewaySettings) -> Options:
    return Options(
        limits=Limits(settings.first_token_seconds, settings.between_tokens_seconds),
        retry=Retry(settings.attempts, settings.retry_pause_seconds, settings.retry_patience_seconds),
        fallbacks=settings.fallbacks,
        provider_slots=settings.provider_slots,
        organization_slots=settings.organization_slots,
        window=settings.delta_window_ms / 1000,
        heartbeat=settings.heartbeat_seconds,
    )
