"""Google's generateContent, through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import httpx2
from google import genai
from google.genai import errors as google_errors
from google.genai.types import GenerateContentConfig, HttpOptions

from letta.llm.v1.generation_service_pb2 import Generation
from letta_common.errors import LLMAuthentication, LLMBadRequest, LLMInvalidResponse
from letta_llm_gateway.domain.answers import Call, Event
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Vector
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.errors import refusal, transport_errors
from letta_llm_gateway.providers.fitting.reasons import reason_of
from letta_llm_gateway.providers.wires import google as google_wire
from letta_llm_gateway.providers.wires import wire_json
from letta_llm_gateway.providers.wires.bodies import Body, listed, together
from letta_llm_gateway.providers.wires.sse import spoken

OFFICIAL = "https://generativelanguage.googleapis.com"
# The SDK's default, named here so that an upgrade of the SDK does not change the wire.
_VERSION = "v1beta"
# The vendor's largest page; its usual one has 50 rows.
_PAGE = 1000
_ANYTHING = {"role": "user", "parts": [{"text": "."}]}
"""Stands for the contents while the SDK makes its request: it would walk through them by its types."""
_contents: ContextVar[bytes | None] = ContextVar("contents", default=None)
_bodies: ContextVar[list[httpx2.AsyncByteStream] | None] = ContextVar("bodies", default=None)


async def _take(response: httpx2.Response) -> None:
    """Take the body of a streamed answer: the SDK reads lines of any length, and refuses a chunk for one odd number."""
    bodies = _bodies.get()
    # A refusal is left to the SDK, which reads it whole and raises.
    if bodies is None or response.status_code >= 300 or not isinstance(response.stream, httpx2.AsyncByteStream):
        return
    bodies.append(response.stream)
    response.stream = httpx2.ByteStream(b"")


async def _put(request: httpx2.Request) -> None:
    """Put the contents, which were written before, into a request that the SDK made."""
    if (items := _contents.get()) is None:
        return
    head = wire_json.read(request.content, "")
    head.pop("contents")
    data = Body(head, "contents", items).encoded()
    request.stream = httpx2.ByteStream(data)
    request.headers["content-length"] = str(len(data))


@contextmanager
def _put_in(items: bytes) -> Iterator[None]:
    """Let requests of this task have these contents."""
    token = _contents.set(items)
    try:
        yield
    finally:
        _contents.reset(token)


class GoogleProvider:
    """Speaks generateContent with one account."""

    def __init__(
        self, account: Account, http: httpx2.AsyncClient, fragments: Fragments, client: genai.Client | None = None
    ) -> None:
        self._vendor, self._fragments = account.name, fragments
        if client is None and not account.api_key:
            raise LLMAuthentication(f"provider {account.name} has no key; set its api_key", provider=account.name)
        self._http = http
        patience = http.timeout.as_dict()

        async def be_patient(request: httpx2.Request) -> None:
            request.extensions["timeout"] = patience  # the SDK asks for none at all, also to connect

        asking = http.event_hooks.get("request", [])
        self._http.event_hooks = {
            # Contents go in first: the hooks behind record the body for traces.
            "request": [_put, *asking, be_patient],
            "response": [*self._http.event_hooks.get("response", []), _take],
        }
        options = HttpOptions(
            base_url=account.base_url or OFFICIAL, api_version=_VERSION, httpx_async_client=self._http
        )
        made = client or genai.Client(vertexai=False, api_key=account.api_key, http_options=options)
        self._models = made.aio.models

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        contents, config = self._request(call)
        config.should_return_http_response = True
        with self._errors(call.model, call.prompt.tools), _put_in(contents):
            made = await self._models.generate_content(model=call.model, contents=[_ANYTHING], config=config)
            told = made.sdk_http_response.body if made.sdk_http_response else None
            return google_wire.answer(wire_json.read(told or "", self._vendor), vendor=self._vendor)

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        contents, config = self._request(call)
        reader = google_wire.StreamReader(vendor=self._vendor, model=call.model)
        with self._errors(call.model, call.prompt.tools):
            async with self._opened(call.model, contents, config) as body:
                async for event in spoken(aiter(body), reader, vendor=self._vendor):
                    yield event

    @asynccontextmanager
    async def _opened(
        self, model: str, contents: bytes, config: GenerateContentConfig
    ) -> AsyncIterator[httpx2.AsyncByteStream]:
        """Give the body of a streamed answer, which is closed in the end."""
        async with AsyncExitStack() as stack:
            bodies: list[httpx2.AsyncByteStream] = []
            token = _bodies.set(bodies)
            try:
                asked: dict[str, Any] = {"model": model, "contents": [_ANYTHING], "config": config}
                with _put_in(contents):
                    chunks: Any = await self._models.generate_content_stream(**asked)
                    async for _ in chunks:  # none: the SDK asks when its first chunk is wanted, and finds no body
                        pass
            finally:
                _bodies.reset(token)
                for body in bodies:
                    stack.push_async_callback(body.aclose)
            if not bodies:
                raise LLMInvalidResponse(f"{self._vendor} answered without content", provider=self._vendor)
            yield bodies[-1]

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:
        """Turn texts into vectors."""
        with self._errors(model):
            made = await self._models.embed_content(model=model, contents=list(texts))
        vectors = [list(row.values or ()) for row in made.embeddings or ()]
        if len(vectors) != len(texts):
            raise LLMInvalidResponse(
                f"{self._vendor} embedded {len(vectors)} of {len(texts)} texts", provider=self._vendor
            )
        return list(vectors)

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt as the vendor counts them; system and tools as if they were said."""
        contents, config = google_wire.request(call.prompt, self._fragments)
        # The SDK takes neither system instruction nor tools when it counts with the Gemini API.
        beside = [str(config["system_instruction"])] if "system_instruction" in config else []
        beside += [tool.name + tool.description + tool.parameters for tool in call.prompt.tools]
        told = [{"role": "user", "parts": [{"text": text} for text in beside]}] if beside else []
        with self._errors(call.model, call.prompt.tools), _put_in(together(listed(told), contents)):
            counted = await self._models.count_tokens(model=call.model, contents=[_ANYTHING])
        return counted.total_tokens

    async def models(self) -> list[ListedModel]:
        """List what the vendor offers."""
        found = []
        with self._errors(""):
            async for row in await self._models.list(config={"page_size": _PAGE}):
                name = (row.name or "").rpartition("models/")[2]
                # Vertex lists no actions, so there the name must tell.
                actions = row.supported_actions or ["embedContent" if "embedding" in name else "generateContent"]
                embedding = "embedContent" in actions
                if name and (embedding or "generateContent" in actions):
                    found.append(
                        ListedModel(name, row.input_token_limit, embedding, display_name=row.display_name or "")
                    )
        return found

    def rules(self, model: str) -> checks.Rules:  # noqa: ARG002
        """Return what the vendor's reference says of requests."""
        return checks.GOOGLE

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    def _request(self, call: Call) -> tuple[bytes, GenerateContentConfig]:
        contents, config = google_wire.request(call.prompt, self._fragments, max_tokens=call.max_output_tokens)
        try:
            return contents, GenerateContentConfig(**config)
        except ValueError as error:
            raise LLMBadRequest(f"{self._vendor} knows no such model settings: {error}"[:500]) from error

    @contextmanager
    def _errors(self, model: str, tools: Sequence[Any] = ()) -> Iterator[None]:
        """Turn what the SDK raises into the errors of the contract."""
        try:
            with transport_errors(self._vendor):
                yield
        except google_errors.APIError as error:
            headers = getattr(error.response, "headers", None)
            told = reason_of(getattr(error.response, "content", b""))
            names = [tool.name for tool in tools]
            raise refusal(self._vendor, error.code or 500, told, headers, model=model, tools=names) from error
        except (google_errors.UnknownApiResponseError, ValueError) as error:
            raise LLMInvalidResponse(f"{self._vendor} answered something unreadable", provider=self._vendor) from error


def make(account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> GoogleProvider:
    """Make the provider of an account."""
    return GoogleProvider(account, http, fragments)
