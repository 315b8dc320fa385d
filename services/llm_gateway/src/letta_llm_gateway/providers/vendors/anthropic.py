"""Anthropic's messages, through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import anthropic
import httpx2

from letta_common.errors import CapabilityMissing, LLMAuthentication
from letta_llm_gateway.domain.answers import Answer, Call, Event
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Vector
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.errors import sdk_errors
from letta_llm_gateway.providers.http import own_headers
from letta_llm_gateway.providers.wires import anthropic as anthropic_wire
from letta_llm_gateway.providers.wires import sse, wire_json

OFFICIAL = "https://api.anthropic.com"
_LIST_SECONDS = 10.0
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking")


class AnthropicProvider:
    """Speaks messages with one account."""

    def __init__(
        self, account: Account, http: httpx2.AsyncClient, client: anthropic.AsyncAnthropicVertex | None = None
    ) -> None:
        self._vendor = account.name
        if client is None and not account.api_key:
            raise LLMAuthentication(f"provider {account.name} has no key; set its api_key", provider=account.name)
        keys = {"x-api-key": account.api_key, "authorization": f"Bearer {account.api_key}"}
        self._client: Any = client or anthropic.AsyncAnthropic(
            api_key=account.api_key,
            base_url=account.base_url or OFFICIAL,
            max_retries=0,  # the gateway retries, so that deadlines and breakers see every attempt
            timeout=http.timeout,
            http_client=http,
            default_headers=own_headers(account, keys, anthropic.Omit()),
        )

    async def generate(self, call: Call) -> Answer:
        """Answer once."""
        body = anthropic_wire.request(call.model, call.prompt, max_tokens=call.max_output_tokens)
        with self._errors(call.model, call.prompt.tools):
            response = await self._client.messages.with_raw_response.create(**body)
            return anthropic_wire.answer(
                wire_json.read(response.http_response.content, self._vendor), vendor=self._vendor
            )

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        body = anthropic_wire.request(call.model, call.prompt, max_tokens=call.max_output_tokens)
        reader = anthropic_wire.StreamReader(vendor=self._vendor, model=call.model)
        with self._errors(call.model, call.prompt.tools):
            async with self._client.messages.with_streaming_response.create(**body, stream=True) as response:
                async for data in sse.events(response.iter_bytes(), vendor=self._vendor):
                    for event in reader.feed(wire_json.read(data, self._vendor)):
                        yield event
            for event in reader.end():
                yield event

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:  # noqa: ARG002
        """Refuse: the vendor has no embedder."""
        raise CapabilityMissing(
            f"{self._vendor} embeds no texts; choose another embedding model", provider=self._vendor
        )

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt as the vendor counts them."""
        body = anthropic_wire.request(call.model, call.prompt, max_tokens=call.max_output_tokens)
        asked = {key: body[key] for key in _COUNTED if key in body}
        with self._errors(call.model, call.prompt.tools):
            response = await self._client.messages.with_raw_response.count_tokens(**asked)
        found = wire_json.read(response.http_response.content, self._vendor).get("input_tokens")
        return int(found) if found else None

    async def models(self) -> list[ListedModel]:
        """List what the vendor offers."""
        with self._errors(""):
            response = await self._client.models.with_raw_response.list(limit=1000, timeout=_LIST_SECONDS)
        body = wire_json.read(response.http_response.content, self._vendor)
        rows = body.get("data") if isinstance(body, dict) else None
        return [
            ListedModel(str(row["id"]), display_name=str(row.get("display_name") or ""))
            for row in rows or ()
            if isinstance(row, dict) and row.get("id")
        ]

    def rules(self, model: str) -> checks.Rules:  # noqa: ARG002
        """Return what the vendor's reference says of requests."""
        return checks.ANTHROPIC

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    def _errors(self, model: str, tools: Sequence[Any] = ()) -> AbstractContextManager[None]:
        """Turn what the SDK raises into the errors of the contract."""
        return sdk_errors(anthropic, anthropic.AnthropicError, self._vendor, model, tools)


def make(account: Account, http: httpx2.AsyncClient) -> AnthropicProvider:
    """Make the provider of an account."""
    return AnthropicProvider(account, http)
