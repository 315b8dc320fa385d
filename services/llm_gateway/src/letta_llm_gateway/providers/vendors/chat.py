"""OpenAI's chat completions, at any server that speaks them, through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import openai

from letta.llm.v1.generation_service_pb2 import Generation
from letta_common.errors import LLMAuthentication, LLMBadRequest, LLMInvalidResponse
from letta_llm_gateway.domain.answers import Call, Event
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Vector
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks, sdks
from letta_llm_gateway.providers.errors import sdk_errors
from letta_llm_gateway.providers.http import own_headers
from letta_llm_gateway.providers.wires import chat, wire_json
from letta_llm_gateway.providers.wires.bodies import Body
from letta_llm_gateway.providers.wires.sse import spoken

OFFICIAL = "https://api.openai.com/v1"
PATH = "/chat/completions"
_LIST_SECONDS = 10.0
_MOST_MODELS = 1000  # of one account whose way with think tags is remembered
# As Groq, then OpenRouter and Together, then vLLM, then Mistral name it in their lists.
_WINDOW_KEYS = ("context_window", "context_length", "max_model_len", "max_context_length")


class ChatProvider:
    """Speaks with one account. `client` is one of OpenAI's own, where the account does not say all that it needs."""

    def __init__(
        self,
        account: Account,
        http: httpx2.AsyncClient,
        fragments: Fragments,
        client: openai.AsyncOpenAI | None = None,
    ) -> None:
        self._vendor, self._fragments = account.name, fragments
        self._closing: set[str] = set()  # models that close thoughts which the prompt opened
        self._official = client is not None or (account.base_url or OFFICIAL).startswith("https://api.openai.com")
        self._replays = not self._official
        if self._official and not account.api_key and client is None:
            raise LLMAuthentication(f"provider {account.name} has no key; set its api_key", provider=account.name)
        self._client = client or openai.AsyncOpenAI(
            # The SDK insists on a key, and local servers want none.
            api_key=account.api_key or "none",
            base_url=account.base_url or OFFICIAL,
            max_retries=0,  # the gateway retries, so that deadlines and breakers see every attempt
            timeout=http.timeout,
            http_client=http,
            default_headers=own_headers(account, {"authorization": f"Bearer {account.api_key}"}, openai.Omit()),
        )

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        try:
            return await self._generate(call)
        except LLMBadRequest as error:
            if not self._keeps_thoughts_from_now_on(error):
                raise
        return await self._generate(call)

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        try:
            async for event in self._stream(call):
                yield event
        except LLMBadRequest as error:
            if not self._keeps_thoughts_from_now_on(error):
                raise
        else:
            return
        async for event in self._stream(call):
            yield event

    def _keeps_thoughts_from_now_on(self, refused: LLMBadRequest) -> bool:
        """Send no reasoning any more when a server refuses it; say whether that is what it refused."""
        told, self._replays = self._replays, self._replays and "reasoning_content" not in refused.message
        return told and not self._replays

    async def _generate(self, call: Call) -> Generation:
        data = (await self._request(call)).encoded()
        with self._errors(call.model, call.prompt.tools):
            said = wire_json.read(await sdks.ask(self._client, self._path(call.model), data), self._vendor)
            return chat.answer(said, vendor=self._vendor, lone_tags=not self._official)

    async def _stream(self, call: Call) -> AsyncGenerator[Event, None]:
        data = (await self._request(call)).encoded(stream=True, stream_options={"include_usage": True})
        # OpenAI's own models write no think tags.
        tags = {"lone_tags": not self._official, "opened": call.model in self._closing}
        reader = chat.StreamReader(vendor=self._vendor, model=call.model, **tags)
        with self._errors(call.model, call.prompt.tools):
            async with sdks.listen(self._client, self._path(call.model), data) as chunks:
                async for event in spoken(chunks, reader, vendor=self._vendor, at_mark=reader.done):
                    yield event
            if reader.closes_alone and len(self._closing) < _MOST_MODELS:
                self._closing.add(call.model)

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:
        """Turn texts into vectors."""
        with self._errors(model):
            # Without a format the SDK asks for base64, which not every compatible server knows.
            response = await self._client.embeddings.with_raw_response.create(
                model=model, input=list(texts), encoding_format="float"
            )
        body = wire_json.read(response.http_response.content, self._vendor)
        try:
            vectors: list[Vector] = [
                row["embedding"] for row in sorted(body["data"], key=lambda row: int(row["index"]))
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise LLMInvalidResponse(f"{self._vendor} answered without embeddings", provider=self._vendor) from error
        return vectors

    async def count(self, call: Call) -> int | None:  # noqa: ARG002
        """Count nothing: the wire has no call for it, and the vocabulary is known."""
        return None

    async def models(self) -> list[ListedModel]:
        """List what the vendor offers."""
        with self._errors(""):
            response = await self._client.models.with_raw_response.list(timeout=_LIST_SECONDS)
        body = wire_json.read(response.http_response.content, self._vendor)
        rows = body.get("data") if isinstance(body, dict) else None
        return [_listed(row) for row in rows or () if isinstance(row, dict) and row.get("id")]

    def rules(self, model: str) -> checks.Rules:  # noqa: ARG002
        """Return what the vendor's reference says of requests."""
        return checks.OPENAI if self._official else checks.ANY

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    def _path(self, model: str) -> str:  # noqa: ARG002
        """Return where a model is asked."""
        return PATH

    async def _request(self, call: Call) -> Body:
        limit, official = call.max_output_tokens, self._official
        return await chat.request(
            call.model, call.prompt, self._fragments, official=official, max_tokens=limit, thoughts=self._replays
        )

    def _errors(self, model: str, tools: Sequence[Any] = ()) -> AbstractContextManager[None]:
        """Turn what the SDK raises into the errors of the contract."""
        return sdk_errors(openai, openai.OpenAIError, self._vendor, model, tools)


def _listed(row: dict[str, Any]) -> ListedModel:
    name = str(row["id"])
    windows = (row.get(key) for key in _WINDOW_KEYS)
    window = next((value for value in windows if isinstance(value, int) and value > 0), None)
    embedding = "embed" in name or row.get("type") == "embedding"
    return ListedModel(name, context_window=window, embedding=embedding)
