"""Builds the llm_gateway service from its parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from letta.llm.v1 import (
    budget_service_pb2_grpc,
    embedding_service_pb2_grpc,
    generation_service_pb2_grpc,
    model_service_pb2_grpc,
    provider_service_pb2_grpc,
    trace_service_pb2_grpc,
    usage_service_pb2_grpc,
)
from letta_common.clock import Clock
from letta_common.egress import AddressGuard
from letta_common.process.periodic import Periodic, stop_all
from letta_common.sealing import Sealer
from letta_llm_gateway.domain.accounting import budgets as budgets_
from letta_llm_gateway.domain.accounting.budgets import Budgets, BudgetStore
from letta_llm_gateway.domain.accounting.traces import Tracing
from letta_llm_gateway.domain.accounting.usage import UsageStore, UsageWriter, WriterOptions
from letta_llm_gateway.domain.catalogue import models
from letta_llm_gateway.domain.catalogue.accounts import SECRETS, TABLE, Accounts, ProviderStore
from letta_llm_gateway.domain.catalogue.models import Models
from letta_llm_gateway.domain.catalogue.prices import Prices, read_prices
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.domain.catalogue.tokens import Counts
from letta_llm_gateway.domain.embedding import embeddings
from letta_llm_gateway.domain.embedding.embedding_lines import LineOptions
from letta_llm_gateway.domain.embedding.embedding_usage import EmbeddingBook
from letta_llm_gateway.domain.embedding.embeddings import Embeddings
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.domain.generation.generations import Accounting, GenerationOptions, Generations
from letta_llm_gateway.domain.generation.streams import PhaseLimits
from letta_llm_gateway.domain.resilience import Retry
from letta_llm_gateway.providers import probe
from letta_llm_gateway.providers.http import Clients
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.providers.tokenizer import LocalTokenizer
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from letta_llm_gateway.providers.wires.arguments import finished
from letta_llm_gateway.servicers.budgets import BudgetServicer
from letta_llm_gateway.servicers.embeddings import EmbeddingServicer
from letta_llm_gateway.servicers.generations import GenerationServicer
from letta_llm_gateway.servicers.models import ModelServicer
from letta_llm_gateway.servicers.providers import ProviderServicer
from letta_llm_gateway.servicers.traces import TraceServicer
from letta_llm_gateway.servicers.usage import UsageServicer
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.store.accounts import SqlProviderStore
from letta_llm_gateway.store.budgets import SqlBudgetStore
from letta_llm_gateway.store.usage import SqlUsageStore
from letta_postgres.db import Database, DatabaseOptions
from letta_postgres.migrations import upgrade
from letta_postgres.resealing import Resealer, SealedColumn
from letta_rpc.service import Deps, Service, nothing

SCHEMA = "llm"
SEALED = tuple(SealedColumn(f"{TABLE}.{field}") for field in SECRETS)
_KEYED = ("groq", "together", "deepseek", "xai", "openrouter", "mistral")


_HOUR = 3600.0
_TRACES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class GatewayStores:
    """Where the service keeps what it keeps."""

    providers: ProviderStore
    books: UsageStore
    budgets: BudgetStore
    reseal: Callable[[], Awaitable[object]] = nothing
    """Seals anew what a former encryption key sealed."""


async def build(settings: LLMGatewaySettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    dsn = settings.database_url.get_secret_value()
    await upgrade(dsn, package="letta_llm_gateway", schema=SCHEMA, extensions=())
    options = DatabaseOptions(pool_size=settings.pool_size, application_name="letta-llm-gateway")
    db = await Database.open(dsn, schema=SCHEMA, options=options)
    resealer = Resealer(db, Sealer(settings.sealing_secrets()), SEALED)
    stores = GatewayStores(SqlProviderStore(db), SqlUsageStore(db), SqlBudgetStore(db), resealer.reseal)
    return replace(assemble(settings, deps, stores, db.close), alive=db.alive)


def assemble(
    settings: LLMGatewaySettings,
    deps: Deps,
    stores: GatewayStores,
    close_stores: Callable[[], Awaitable[None]] = nothing,
) -> Service:
    """Return the service over these stores."""
    guard = _guard(settings)
    accounts = Accounts(stores.providers, Sealer(settings.sealing_secrets()), guard.check_url, deps.clock)
    fragments = Fragments(round(settings.fragment_cache_megabytes * (1 << 20)))
    factory = ProviderFactory(BuiltinProvider(fragments=fragments), Clients(guard), fragments=fragments)
    catalogue = _catalogue(settings, deps.clock, accounts, factory)
    books = stores.books
    usage = UsageWriter(books, WriterOptions(trace_bytes=settings.provider_trace_kilobytes * 1024))
    limits = budgets_.BudgetOptions(round(settings.budget_dollars * 1e6), settings.budget_seconds)
    budgets = Budgets(stores.budgets, deps.clock, usage.flush, limits)
    prices = Prices(read_prices(settings.prices, settings.prices_file), deps.clock)
    embedder = Embeddings(catalogue, _embedding(settings), EmbeddingBook(usage, budgets, prices, deps.clock))
    tokenizer = LocalTokenizer()
    options = replace(_options(settings), counts=Counts(tokenizer))
    accounting = Accounting(usage, budgets, prices)
    generations = Generations(catalogue, accounting, read=finished, clock=deps.clock, options=options)
    background = _background(settings, deps.clock, stores, budgets)

    async def start() -> None:
        usage.start()
        for work in background:
            work.start()
        factory.warm(base_accounts(settings))

    async def close() -> None:
        await stop_all(background)
        await tokenizer.close()
        await embedder.close()
        await usage.close()
        await factory.close()
        await close_stores()

    speaking = GenerationServicer(generations, fragments)
    offered = ModelServicer(catalogue, accounts, prices)
    brought = ProviderServicer(accounts, catalogue, stores.providers)
    return Service(
        name="llm_gateway",
        servicers=(
            (generation_service_pb2_grpc.add_GenerationServiceServicer_to_server, speaking),
            (embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server, EmbeddingServicer(embedder)),
            (model_service_pb2_grpc.add_ModelServiceServicer_to_server, offered),
            (provider_service_pb2_grpc.add_ProviderServiceServicer_to_server, brought),
            (trace_service_pb2_grpc.add_TraceServiceServicer_to_server, TraceServicer(books, usage)),
            (usage_service_pb2_grpc.add_UsageServiceServicer_to_server, UsageServicer(books, usage)),
            (budget_service_pb2_grpc.add_BudgetServiceServicer_to_server, BudgetServicer(budgets, deps.clock)),
        ),
        start=start,
        close=close,
    )


def _catalogue(settings: LLMGatewaySettings, clock: Clock, accounts: Accounts, factory: ProviderFactory) -> Models:
    return Models(
        base_accounts(settings),
        accounts,
        factory,
        probe=probe.ollama if settings.ollama_probe and not settings.ollama_base_url else probe.nothing,
        clock=clock,
        options=models.DefaultModelOptions(
            settings.default_llm_handle, settings.default_embedding_handle, list_seconds=settings.models_ttl_seconds
        ),
    )


def _embedding(settings: LLMGatewaySettings) -> embeddings.EmbeddingOptions:
    most = round(settings.embedding_cache_megabytes * (1 << 20))
    line = LineOptions(
        background_pause=settings.embedding_pause_seconds,
        waiting_bytes_of_one=round(settings.embedding_waiting_megabytes * (1 << 20)),
        retry=_options(settings).retry,
    )
    return embeddings.EmbeddingOptions(line, cache_bytes=most, cache_bytes_of_one=most // 4)


def _guard(settings: LLMGatewaySettings) -> AddressGuard:
    anywhere = ("*",) if settings.private_addresses or settings.dev_mode else ()
    return AddressGuard((*settings.provider_allowed_hosts, *anywhere))


def _background(settings: LLMGatewaySettings, clock: Clock, stores: GatewayStores, budgets: Budgets) -> list[Periodic]:
    kept = timedelta(days=settings.provider_trace_days)

    async def forget_traces() -> None:
        full = True
        while full:
            full = await stores.books.forget_traces(clock.now() - kept, _TRACES_AT_ONCE) == _TRACES_AT_ONCE

    return [
        Periodic("budgets", budgets.refresh, settings.budget_seconds, at_once=True),
        Periodic("old traces", forget_traces, _HOUR, at_once=True),
        Periodic("seal anew", stores.reseal, _HOUR, at_once=True),
    ]


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
    project, location = settings.google_cloud_project, settings.google_cloud_location
    if project and location:
        found.append(Account("google_vertex", "google_vertex", access_key=project, region=location))
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


def _options(settings: LLMGatewaySettings) -> GenerationOptions:
    return GenerationOptions(
        limits=PhaseLimits(settings.first_token_seconds, settings.between_tokens_seconds, settings.total_seconds),
        retry=Retry(settings.attempts, settings.retry_pause_seconds, settings.retry_patience_seconds),
        fallbacks=settings.fallbacks,
        provider_slots=settings.provider_slots,
        special_slots=settings.provider_slots_of,
        organization_slots=settings.organization_slots,
        window=settings.delta_window_ms / 1000,
        heartbeat=settings.heartbeat_seconds,
        tracing=Tracing(
            settings.provider_trace_share if settings.provider_trace else 0.0,
            settings.provider_trace_kilobytes * 1024,
        ),
    )
