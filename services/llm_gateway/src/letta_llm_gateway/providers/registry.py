"""Which type of provider is made by which file. SDKs are imported when a provider of the type is first wanted."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from letta_common.egress import AddressGuard
from letta_common.errors import AppError, CapabilityMissing, InvalidArgument, LLMAuthentication
from letta_llm_gateway.domain.catalogue import prices
from letta_llm_gateway.domain.catalogue.providers import Account, Provider
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.domain.leaving import LeavingCache
from letta_llm_gateway.providers.fitting.wired import Wire, WiredProvider
from letta_llm_gateway.providers.http import Clients, GuardedProvider

_PACKAGE = "letta_llm_gateway.providers.vendors"


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """What is known of a type of provider before its file is imported."""

    file: str
    """Its module among the vendors."""
    address: str | None = None
    """Where it is when the account does not say; "" must be said, None is the file's own to know."""
    keyless: bool = False
    """It answers without a key."""
    extra: bool = False
    """Its SDK is an extra of the package, which has the name of the type."""


KINDS = {
    "openai": ProviderKind("openai"),
    "openai-responses": ProviderKind("openai"),
    "anthropic": ProviderKind("anthropic"),
    "bedrock": ProviderKind("bedrock", extra=True),
    "google_ai": ProviderKind("google"),
    "google_vertex": ProviderKind("vertex"),
    "ollama": ProviderKind("ollama", keyless=True),
    "azure": ProviderKind("azure"),
    # These speak OpenAI's chat completions as they are.
    "openai-compatible": ProviderKind("openai", "", keyless=True),
    "vllm": ProviderKind("openai", "http://127.0.0.1:8000/v1", keyless=True),
    "lmstudio_openai": ProviderKind("openai", "http://127.0.0.1:1234/v1", keyless=True),
    "llamacpp": ProviderKind("openai", "http://127.0.0.1:8080/v1", keyless=True),
    "sglang": ProviderKind("openai", "http://127.0.0.1:30000/v1", keyless=True),
    "groq": ProviderKind("openai", "https://api.groq.com/openai/v1"),
    "together": ProviderKind("openai", "https://api.together.xyz/v1"),
    "deepseek": ProviderKind("openai", "https://api.deepseek.com/v1"),
    "xai": ProviderKind("openai", "https://api.x.ai/v1"),
    "openrouter": ProviderKind("openai", "https://openrouter.ai/api/v1"),
    "mistral": ProviderKind("openai", "https://api.mistral.ai/v1"),
    "fireworks": ProviderKind("openai", "https://api.fireworks.ai/inference/v1"),
    "cerebras": ProviderKind("openai", "https://api.cerebras.ai/v1"),
    "baseten": ProviderKind("openai", "https://inference.baseten.co/v1"),
}
"""The types of provider, a row each."""
Maker = Callable[[Account, httpx2.AsyncClient, Fragments], Wire]
"""Makes the provider of an account over an HTTP client; what is made of histories is kept in the fragments."""
_KEPT = 1000
_CLOSE_SECONDS = 900.0
"""A provider that is no longer kept may still speak; its connections are closed so much later."""


class ProviderFactory:
    """Makes providers, each account's once; of those that were not wanted for long, only so many are kept."""

    def __init__(
        self,
        builtin: Provider,
        clients: Clients | None = None,
        *,
        fragments: Fragments | None = None,
        kept: int = _KEPT,
    ) -> None:
        self._builtin, self._fragments = builtin, fragments or Fragments()
        self._clients = clients or Clients(AddressGuard())
        self._made: LeavingCache[Account, Provider] = LeavingCache(kept, self._leave)
        self._leaving: set[asyncio.Task[None]] = set()
        self._warming: asyncio.Task[None] | None = None

    async def provider(self, account: Account) -> Provider:
        """Return the provider of an account.

        Raises:
            InvalidArgument: there is no such type of provider, or the account lacks an address.
            LLMAuthentication: the account has no key and the vendor needs one.
        """
        if account.provider_type == "builtin":
            return self._builtin
        made = self._made.get(account)
        if made is None:
            made = self._made.setdefault(account, await self._new(account))
        return made

    def warm(self, accounts: Sequence[Account]) -> None:
        """Begin to import the SDKs of accounts and to make their providers, so that no message waits for that.

        An account that cannot be used stays for who asks it: the caller is told why.
        """

        async def make_all() -> None:
            for account in accounts:
                with suppress(AppError):
                    await self.provider(account)

        if accounts:
            self._warming = asyncio.create_task(make_all())

    @asynccontextmanager
    async def trial(self, account: Account) -> AsyncIterator[Provider]:
        """Make a provider for a moment: credentials that are only tried leave nothing behind."""
        if account.provider_type == "builtin":
            yield self._builtin
            return
        provider = await self._new(account)
        try:
            yield provider
        finally:
            await provider.close()

    async def close(self) -> None:
        """Close every provider."""
        ending = [*self._leaving, *([self._warming] if self._warming is not None else ())]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for provider in (self._builtin, *self._made.values()):
            await provider.close()

    async def _new(self, account: Account) -> Provider:
        # The import of an SDK, and of the list of prices, would hold up every other call.
        make = await asyncio.to_thread(_maker, account.provider_type)
        wire = make(_addressed(account), self._clients.of(account), self._fragments)
        provider = WiredProvider(wire, account, self._fragments)
        return GuardedProvider(provider) if account.organization_id else provider

    def _leave(self, _account: Account, provider: Provider) -> None:
        async def close_later() -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(_CLOSE_SECONDS)
            await provider.close()

        task = asyncio.create_task(close_later())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def provider_types() -> list[str]:
    """List the types of provider that can be made."""
    return sorted(KINDS)


def _maker(provider_type: str) -> Maker:
    kind = KINDS.get(provider_type)
    if kind is None:
        raise InvalidArgument(
            f"there is no provider type {provider_type!r}, use one of {provider_types()}", field="provider_type"
        )
    try:
        module: Any = importlib.import_module(f"{_PACKAGE}.{kind.file}")
    except ModuleNotFoundError as error:
        if not kind.extra:
            raise
        raise CapabilityMissing(
            f"this deployment has no {error.name}; install its extra: services/llm_gateway[{provider_type}]",
            type=provider_type,
        ) from error
    prices.warm(provider_type)
    maker: Maker = module.make
    return maker


def _addressed(account: Account) -> Account:
    kind = KINDS[account.provider_type]
    if account.base_url or kind.address is None:
        return account
    if not kind.keyless and not account.api_key:
        raise LLMAuthentication(f"provider {account.name} has no key; set its api_key", provider=account.name)
    if not kind.address:
        raise InvalidArgument(f"provider {account.name} needs a base_url", field="base_url")
    return replace(account, base_url=kind.address)
