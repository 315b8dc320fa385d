"""Anthropic's messages, through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

import anthropic
import httpx2

from letta_common.errors import CapabilityMissing, LLMAuthentication
from letta_llm_gateway.domain.answers import Answer, Call, Event
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Vector
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks, sdks
from letta_llm_gateway.providers.errors import sdk_errors
from letta_llm_gateway.providers.http import own_headers
from letta_llm_gateway.providers.wires import anthropic as anthropic_wire
from letta_llm_gateway.providers.wires import sse, wire_json

OFFICIAL = "https://api.anthropic.com"
_LIST_SECONDS = 10.0
_MESSAGES = "/v1/messages"
_CLOUD_VERSION = "vertex-2023-10-16"
"""The version of the wire that Vertex speaks, which stands in the body there."""
_COUNTED = ("model", "system", "tools", "tool_choice", "thinking")


class AnthropicProvider:
    """Speaks messages with one account."""

    def __init__(
        self,
        account: Account,
        http: httpx2.AsyncClient,
        fragments: Fragments,
        client: anthropic.AsyncAnthropicVertex | None = None,
    ) -> None:
        self._vendor, self._fragments = account.name, fragments
        if client is None and not account.api_key:
            raise LLMAuthentication(f"provider {account.name} has no key; set its api_key", provider=account.name)
        keys = {"x-api-key": account.api_key, "authorization": f"Bearer {account.api_key}"}
        self._cloud = client
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
        path, data = self._request(call)
        with self._errors(call.model, call.prompt.tools):
            said = wire_json.read(await sdks.ask(self._client, path, data), self._vendor)
            return anthropic_wire.answer(said, vendor=self._vendor)

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        path, data = self._request(call, stream=True)
        reader = anthropic_wire.StreamReader(vendor=self._vendor, model=call.model)
        with self._errors(call.model, call.prompt.tools):
            async with sdks.listen(self._client, path, data) as chunks:
                async for said in sse.events(chunks, vendor=self._vendor):
                    for event in reader.feed(wire_json.read(said, self._vendor)):
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
        body = anthropic_wire.request(call.model, call.prompt, self._fragments, max_tokens=call.max_output_tokens)
        data = body.only(_COUNTED).encoded()
        with self._errors(call.model, call.prompt.tools):
            counted = await sdks.ask(self._client, f"{_MESSAGES}/count_tokens", data)
        found = wire_json.read(counted, self._vendor).get("input_tokens")
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

    def _request(self, call: Call, **more: bool) -> tuple[str, bytes]:
        """Return path and body of a request; Vertex names the model in the path."""
        body = anthropic_wire.request(call.model, call.prompt, self._fragments, max_tokens=call.max_output_tokens)
        if self._cloud is None:
            return _MESSAGES, body.encoded(**more)
        place = f"/projects/{self._cloud.project_id}/locations/{self._cloud.region}/publishers/anthropic/models"
        verb = "streamRawPredict" if more.get("stream") else "rawPredict"
        del body.head["model"]
        return f"{place}/{quote(call.model, safe='')}:{verb}", body.encoded(anthropic_version=_CLOUD_VERSION, **more)

    def _errors(self, model: str, tools: Sequence[Any] = ()) -> AbstractContextManager[None]:
        """Turn what the SDK raises into the errors of the contract."""
        return sdk_errors(anthropic, anthropic.AnthropicError, self._vendor, model, tools)


def make(account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> AnthropicProvider:
    """Make the provider of an account."""
    return AnthropicProvider(account, http, fragments)
