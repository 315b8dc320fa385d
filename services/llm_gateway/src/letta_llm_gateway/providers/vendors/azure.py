"""OpenAI's models at Azure, through the official SDK. A model's name is the name of its deployment."""

from __future__ import annotations

from urllib.parse import quote

import httpx2
import openai

from letta_common.errors import InvalidArgument, LLMAuthentication
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.http import own_headers
from letta_llm_gateway.providers.vendors.chat import PATH, ChatProvider

# The newest of Azure's dated versions that is no preview.
DEFAULT_VERSION = "2024-10-21"


class AzureProvider(ChatProvider):
    """Speaks with the deployments of one resource."""

    def _path(self, model: str) -> str:
        # The SDK writes the deployment into the path only where the body is a mapping; ours are bytes.
        return f"/deployments/{quote(model, safe='')}{PATH}"


def make(account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> AzureProvider:
    """Make the provider of an account."""
    if not account.base_url:
        raise InvalidArgument(
            f"provider {account.name} needs a base_url, the address of the resource", field="base_url"
        )
    if not account.api_key:
        raise LLMAuthentication(f"provider {account.name} has no key; set its api_key", provider=account.name)
    client = openai.AsyncAzureOpenAI(
        api_key=account.api_key,
        azure_endpoint=account.base_url,
        api_version=account.api_version or DEFAULT_VERSION,
        # The gateway retries, so that deadlines and breakers see every attempt.
        max_retries=0,
        timeout=http.timeout,
        http_client=http,
        default_headers=own_headers(account, {"api-key": account.api_key}, openai.Omit()),
    )
    return AzureProvider(account, http, fragments, client)
