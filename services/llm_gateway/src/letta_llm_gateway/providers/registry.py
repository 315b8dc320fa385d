"""Which type of provider is made by which file. SDKs are imported when a provider of the type is first wanted."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from letta_common.errors import InvalidArgument
from letta_llm_gateway.domain.providers import Account, Provider

_PACKAGE = "letta_llm_gateway.providers"
_FILES = {
    "openai": ("openai", "make"),
    "openai-responses": ("openai", "make"),
    "anthropic": ("anthropic", "make"),
    "google_ai": ("google", "make"),
    "ollama": ("ollama", "make"),
    "azure": ("azure", "make"),
}
COMPATIBLE = {
    "openai-compatible": "",
    "vllm": "http://127.0.0.1:8000/v1",
    "lmstudio_openai": "http://127.0.0.1:1234/v1",
    "llamacpp": "http://127.0.0.1:8080/v1",
    "sglang": "http://127.0.0.1:30000/v1",
    "groq": "https://api.groq.com/openai/v1",
    "together": "https://api.together.xyz/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "xai": "https://api.x.ai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "mistral": "https://api.mistral.ai/v1",
    "fireworks": "https://api.fireworks.ai/inference/v1",
    "cerebras": "https://api.cerebras.ai/v1",
    "baseten": "https://inference.baseten.co/v1",
}
"""Vendors that speak OpenAI's chat completions, with their addresses; an empty one must be given."""
KEYLESS = frozenset({"openai-compatible", "vllm", "lmstudio_openai", "llamacpp", "sglang", "ollama", "builtin"})


class ProviderFactory:
    """Makes providers, each account's once."""

    def __init__(self, builtin: Provider) -> None:
        self._builtin = builtin
        self._made: dict[Account, Provider] = {}

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
            make = await asyncio.to_thread(_maker, account.provider_type)
            made = self._made.setdefault(account, make(_addressed(account)))
        return made

    async def close(self) -> None:
        """Close every provider."""
        for provider in (self._builtin, *self._made.values()):
            await provider.close()


def provider_types() -> list[str]:
    """List the types of provider that can be made."""
    return sorted({*_FILES, *COMPATIBLE})


def _maker(provider_type: str) -> Callable[[Account], Provider]:
    file, name = _FILES.get(provider_type) or (("openai", "make") if provider_type in COMPATIBLE else ("", ""))
    if not file:
        raise InvalidArgument(
            f"there is no provider type {provider_type!r}, use one of {provider_types()}", field="provider_type"
        )
    module: Any = importlib.import_module(f"{_PACKAGE}.{file}")
    maker: Callable[[Account], Provider] = getattr(module, name)
    return maker


def _addressed(account: Account) -> Account:
    if account.base_url or account.provider_type not in COMPATIBLE:
        return account
    address = COMPATIBLE[account.provider_type]
    if not address:
        raise InvalidArgument(f"provider {account.name} needs a base_url", field="base_url")
    return Account(
        account.name, account.provider_type, account.api_key, address, organization_id=account.organization_id
    )
