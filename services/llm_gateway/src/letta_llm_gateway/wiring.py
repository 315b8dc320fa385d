"""Builds the llm_gateway service from its parts."""

from __future__ import annotations

from collections.abc import Sequence

from letta.llm.v1 import generation_service_pb2_grpc, model_service_pb2_grpc
from letta_common.actor import Actor
from letta_common.service import Deps, Service
from letta_llm_gateway.domain import models
from letta_llm_gateway.domain.budgets import Budgets
from letta_llm_gateway.domain.generations import Generations, Options
from letta_llm_gateway.domain.models import Models
from letta_llm_gateway.domain.providers import Account
from letta_llm_gateway.domain.resilience import Retry
from letta_llm_gateway.domain.streams import Limits
from letta_llm_gateway.domain.usage import UsageWriter
from letta_llm_gateway.providers import probe
from letta_llm_gateway.providers.arguments import checked
from letta_llm_gateway.providers.builtin import BuiltinProvider
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.servicers.generations import GenerationServicer
from letta_llm_gateway.servicers.models import ModelServicer
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.store.fake import FakeUsageStore

SCHEMA = "llm"
_KEYED = ("groq", "together", "deepseek", "xai", "openrouter", "mistral")


class NoAccounts:
    """No organization brought an account."""

    async def of(self, actor: Actor) -> Sequence[Account]:  # noqa: ARG002
        return ()


async def build(settings: LLMGatewaySettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    factory = ProviderFactory(BuiltinProvider())
    catalogue = Models(
        base_accounts(settings),
        NoAccounts(),
        factory,
        probe=probe.ollama if settings.ollama_probe and not settings.ollama_base_url else probe.nothing,
        clock=deps.clock,
        options=models.Options(
            settings.default_llm_handle, settings.default_embedding_handle, list_seconds=settings.models_ttl_seconds
        ),
    )
    usage = UsageWriter(FakeUsageStore())
    budgets = Budgets(round(settings.budget_dollars * 1e6))
    generations = Generations(
        catalogue,
        usage,
        budgets=budgets,
        checked=lambda raw, tool, vendor: checked(raw, tool=tool, vendor=vendor),
        clock=deps.clock,
        options=_options(settings),
    )

    async def close() -> None:
        await usage.close()
        await factory.close()

    return Service(
        name="llm_gateway",
        servicers=(
            (
                generation_service_pb2_grpc.add_GenerationServiceServicer_to_server,
                GenerationServicer(generations, traced=settings.provider_trace),
            ),
            (model_service_pb2_grpc.add_ModelServiceServicer_to_server, ModelServicer(catalogue)),
        ),
        start=usage.start,
        close=close,
    )


def base_accounts(settings: LLMGatewaySettings) -> list[Account]:
    """Return the deployment's own accounts, as far as they are configured."""
    found = [Account("builtin", "builtin")]
    key = settings.openai_api_key.get_secret_value()
    if key or settings.openai_base_url:
        found.append(Account("openai", "openai", key, settings.openai_base_url))
    key = settings.anthropic_api_key.get_secret_value()
    if key:
        found.append(Account("anthropic", "anthropic", key, settings.anthropic_base_url))
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
