"""Google's generateContent, through the official SDK."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx2
from google import genai
from google.genai import errors as google_errors
from google.genai.types import GenerateContentConfig, HttpOptions

from letta.common.v1.message_pb2 import ContentPart, ImageContent, Message
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation, PartEnded, PartStarted, Prompt, ToolChoiceMode
from letta_common.errors import LLMAuthentication, LLMBadRequest, LLMInvalidResponse
from letta_llm_gateway.domain.answers import Call, Completed, Delta, Event, Signed, say_on
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Vector
from letta_llm_gateway.domain.generation.facts import facts_of
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.errors import refusal, stream_refusal, transport_errors
from letta_llm_gateway.providers.fitting.reasons import reason_of, said
from letta_llm_gateway.providers.parts import answer_of, call_part, reasoning_part, text_part
from letta_llm_gateway.providers.wires import signatures, wire_json
from letta_llm_gateway.providers.wires.arguments import finished, new_call_id, text_of
from letta_llm_gateway.providers.wires.bodies import Body, encoded, inside, listed, together
from letta_llm_gateway.providers.wires.reading import cut, read_name, read_object
from letta_llm_gateway.providers.wires.sse import spoken
from letta_llm_gateway.providers.wires.told import (
    CALLED_NAMES,
    answer_schema,
    given_arguments,
    held_image,
    is_models,
    limit_of,
    schema,
)
from letta_llm_gateway.providers.wires.turns import PhasesRecipe, turns_of
from letta_llm_gateway.providers.wires.wire_json import clean, count, rows, table, words

Json = dict[str, Any]
_VENDOR = "google"
_FINISH = {
    "MAX_TOKENS": FinishReason.FINISH_REASON_LENGTH,
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR"),
        FinishReason.FINISH_REASON_CONTENT_FILTER,
    ),
}
# As Google's reference lists them for schemas of arguments.
_WORDS = """
    type format title description enum items minItems maxItems minimum maximum anyOf oneOf properties
    additionalProperties required propertyOrdering
"""
# It takes 512 declarations.
RULES = checks.Rules(re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}"), 512, words=frozenset(_WORDS.split()))
_WORDS_OF_STOPS = ("finishReason", "finishMessage", "blockReason", "blockReasonMessage")
_MODE = {
    ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED: "ANY",
    ToolChoiceMode.TOOL_CHOICE_MODE_NONE: "NONE",
    ToolChoiceMode.TOOL_CHOICE_MODE_TOOL: "ANY",
}
OFFICIAL = "https://generativelanguage.googleapis.com"
# The SDK's default, named here so that an upgrade of the SDK does not change the wire.
_VERSION = "v1beta"
# The vendor's largest page; its usual one has 50 rows.
_PAGE = 1000
_ANYTHING: Any = {"role": "user", "parts": [{"text": "."}]}
"""Stands for the contents while the SDK makes its request: it would walk through them by its types."""
_history: ContextVar[bytes | None] = ContextVar("history", default=None)
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
    if (items := _history.get()) is None:
        return
    head = wire_json.read(request.content, "")
    head.pop("contents")
    data = Body(head, "contents", items).encoded()
    request.stream = httpx2.ByteStream(data)
    request.headers["content-length"] = str(len(data))


@contextmanager
def _put_in(items: bytes) -> Iterator[None]:
    """Let requests of this task have these contents."""
    token = _history.set(items)
    try:
        yield
    finally:
        _history.reset(token)


class GoogleProvider:
    """Speaks generateContent with one account."""

    def __init__(
        self, account: Account, http: httpx2.AsyncClient, fragments: Fragments, client: genai.Client | None = None
    ) -> None:
        self._vendor, self._fragments = account.name, fragments
        if client is None and not account.api_key:
            raise LLMAuthentication(f"provider {account.name} has no key; set its api_key", provider=account.name)
        self._http, patience = http, http.timeout.as_dict()

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
        contents, config = await self._request(call)
        config.should_return_http_response = True
        with self._errors(call.model, call.prompt.tools), _put_in(contents):
            made = await self._models.generate_content(model=call.model, contents=[_ANYTHING], config=config)
            told = made.sdk_http_response.body if made.sdk_http_response else None
            return answer(wire_json.read(told or "", self._vendor), vendor=self._vendor)

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        contents, config = await self._request(call)
        reader = StreamReader(vendor=self._vendor, model=call.model)
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
        contents: list[Any] = [*texts]
        with self._errors(model):
            made = await self._models.embed_content(model=model, contents=contents)
        return [list(row.values or ()) for row in made.embeddings or ()]

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt as the vendor counts them; system and tools as if they were said."""
        contents, config = await request(call.prompt, self._fragments)
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
                    found.append(ListedModel(name, row.input_token_limit, embedding))
        return found

    def rules(self, model: str) -> checks.Rules:  # noqa: ARG002
        """Return what the vendor's reference says of requests."""
        return RULES

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def _request(self, call: Call) -> tuple[bytes, GenerateContentConfig]:
        contents, config = await request(call.prompt, self._fragments, max_tokens=call.max_output_tokens)
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


async def request(prompt: Prompt, fragments: Fragments, *, max_tokens: int | None = None) -> tuple[bytes, Json]:
    """Return the contents as they go out, with commas between them, and the config as the SDK takes it."""
    settings = prompt.settings
    checks.check(prompt, RULES)
    # Otherwise the SDK would take the calls for Python functions of its own and ask again by itself.
    config: Json = {"automatic_function_calling": {"disable": True}, "automatic_continuation": False}
    if prompt.system:
        config["system_instruction"] = prompt.system
    if limit := limit_of(settings, max_tokens):
        config["max_output_tokens"] = limit
    if settings.HasField("temperature"):
        config["temperature"] = settings.temperature
    if settings.HasField("thinking_config"):
        config["thinking_config"] = {field.name: value for field, value in settings.thinking_config.ListFields()}
    if settings.response_format.WhichOneof("format") in {"json_object", "json_schema"}:
        config["response_mime_type"] = "application/json"
        if wanted := answer_schema(prompt):
            config["response_json_schema"] = wanted
    if prompt.tools:
        config["tools"] = [{"function_declarations": [_tool(tool) for tool in prompt.tools]}]
        config["tool_config"] = {"function_calling_config": _choice(prompt)}
    return await _contents(prompt, fragments), config


def _tool(tool: Any) -> Json:
    declared, shape = {"name": tool.name, "description": tool.description}, schema(tool)
    # The vendor refuses an object that has no properties.
    return {**declared, "parameters_json_schema": shape} if shape.get("properties") else declared


def _choice(prompt: Prompt) -> Json:
    choice = prompt.tool_choice
    chosen: Json = {"mode": _MODE.get(choice.mode, "AUTO")}
    if choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL:
        # There is no mode for one certain tool; `ANY` among a list of one says the same.
        chosen["allowed_function_names"] = [choice.name]
    return chosen


@dataclass(frozen=True, slots=True)
class _Content:
    """A content, its parts written as JSON."""

    role: str
    parts: bytes

    def takes(self, other: _Content) -> bool:
        """Say whether both are of one speaker: neighbours of one role are one content."""
        return self.role == other.role

    def with_all(self, others: Sequence[_Content]) -> _Content:
        """Return this content and others of its speaker as one."""
        return _Content(self.role, together(self.parts, *(each.parts for each in others)))

    def encoded(self) -> bytes:
        """Write the content as JSON."""
        return b'{"role":"%s","parts":[%s]}' % (self.role.encode(), self.parts)


async def _contents(prompt: Prompt, fragments: Fragments) -> bytes:
    """Return the conversation in turns: neighbours of one role are one content, and the user begins."""
    messages = tuple(prompt.messages)
    goes_on = (await facts_of(messages, fragments)).turn + 1
    turns = await turns_of(_FORM, messages, fragments, goes_on=goes_on)
    begins = turns.first is not None and turns.first.role == "model"
    told = together(_NOBODY if begins else b"", turns.encoded())
    if _MARK not in told:
        return told
    names = await fragments.of(CALLED_NAMES, messages)
    # A result must name its tool, also one whose call is no longer in the history.
    return _NAMELESS.sub(lambda found: inside(names.get(found[1].decode()) or "tool"), told)


def _turns(message: Message, goes_on: bool) -> Iterator[_Content]:
    if parts := together(*(_part(part, signed=goes_on) for part in message.parts)):
        yield _Content("model" if is_models(message) else "user", parts)


_MARK = b"\0"
"""Stands around the id of a call until the name of its tool is put there. JSON has this byte nowhere."""
_NAMELESS = re.compile(rb"\0([^\0]*)\0")
_FORM = PhasesRecipe(_turns, lambda message: any(part.text.signature for part in message.parts))
_NOBODY = b'{"role":"user","parts":[{"text":"..."}]}'
"""What a user says where the model would begin."""


def _part(part: ContentPart, *, signed: bool) -> bytes:
    """Return a part as it goes out; `signed` says that texts keep their signatures, as in the turn that goes on."""
    match part.WhichOneof("part"):
        case "text" if part.text.text:
            return _with_signature({"text": part.text.text}, part.text.signature if signed else "")
        case "image":
            return _image(part.image)
        case "tool_call":
            call = part.tool_call
            made: Json = {"functionCall": {"name": call.name, "args": given_arguments(call.input)}}
            return _with_signature(made, call.signature)
        case "tool_return":
            returned = part.tool_return
            return _result(returned.tool_call_id, returned.content, failed=returned.is_error)
    return b""


def _with_signature(made: Json, signature: str) -> bytes:
    given = _encoded(signatures.opened(_VENDOR, signature))
    return encoded({**made, "thoughtSignature": given} if given else made)


def _encoded(signature: str | None) -> str:
    """Return a signature as the vendor takes it; nothing for one that is none."""
    try:
        return base64.urlsafe_b64encode(base64.b64decode(signature or "")).decode()
    except binascii.Error:
        return ""


def _result(id: str, content: str, *, failed: bool) -> bytes:
    """Return a result, which names its tool and not its call; the name is put in when it is known."""
    told = encoded({"error" if failed else "output": content})
    return b'{"functionResponse":{"name":"%s%s%s","response":%s}}' % (_MARK, id.encode(), _MARK, told)


def _image(image: ImageContent) -> bytes:
    if image.source.HasField("url"):
        # A file needs a type, and an address does not say which.
        return encoded({"fileData": {"fileUri": image.source.url.url, "mimeType": "image/*"}})
    form, data = held_image(image)
    if not data:
        return b""
    return encoded({"inlineData": {"data": base64.urlsafe_b64encode(data).decode(), "mimeType": form}})


def answer(body: Any, *, vendor: str) -> Generation:
    """Read an answer. Raises LLMInvalidResponse when it has no candidate or cannot be read."""
    reader = StreamReader(vendor=vendor, model="")
    parts: dict[int, ContentPart] = {}
    texts: dict[int, str] = {}
    made = Generation()
    for event in (*reader.feed(body), *reader.end()):
        if isinstance(event, PartStarted):
            parts[event.index] = event.part
        elif isinstance(event, Delta):
            texts[event.index] = texts.get(event.index, "") + event.raw
        elif isinstance(event, Signed) and parts[event.index].HasField("text"):
            parts[event.index].text.signature = clean(event.signature)
        elif isinstance(event, Completed):
            made = event.answer
    if not parts and made.finish_reason == FinishReason.FINISH_REASON_STOP:
        raise LLMInvalidResponse(f"{vendor} answered without content", provider=vendor)
    for index, part in parts.items():
        say_on(part, clean(texts.get(index, "")))
    made.parts.extend(parts.values())
    return finished(made)


def usage(counts: Any) -> TokenUsage | None:
    """Read the counts of tokens; the vendor counts thoughts apart, the contract counts them in."""
    counts = table(counts)
    if not (prompt := count(counts.get("promptTokenCount"))):
        return None
    thoughts = count(counts.get("thoughtsTokenCount"))
    return TokenUsage(  # What tools of the vendor add to a prompt is counted apart from it.
        prompt_tokens=prompt + count(counts.get("toolUsePromptTokenCount")),
        completion_tokens=count(counts.get("candidatesTokenCount")) + thoughts,
        cached_input_tokens=count(counts.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
    )


class StreamReader:
    """Reads the chunks of a stream; a call comes whole."""

    def __init__(self, *, vendor: str, model: str) -> None:
        self._vendor, self._model = vendor, model
        self._next = 0
        self._speech = ""  # kind of the open text or reasoning
        self._calls = False
        self._finish: Any = None
        self._why = ""
        self._usage: TokenUsage | None = None
        self._id = ""

    def feed(self, chunk: Any) -> Iterator[Event]:
        """Yield what a chunk says. Raises the error that the vendor put into the stream."""
        chunk = read_object(chunk, self._vendor)
        if chunk.get("error"):
            raise stream_refusal(self._vendor, chunk["error"], model=self._model)
        self._id = words(chunk.get("responseId")) or self._id
        self._usage = usage(chunk.get("usageMetadata")) or self._usage
        # A blocked prompt gets no candidate, so this is the only end that is told.
        if (blocked := table(chunk.get("promptFeedback"))).get("blockReason"):
            self._finish, self._why = "SAFETY", _why(blocked)
        for candidate in rows(chunk.get("candidates"))[:1]:
            for part in rows(table(candidate.get("content")).get("parts")):
                yield from self._part(part)
            if finish := candidate.get("finishReason"):
                self._finish, self._why = finish, _why(candidate)
            # The candidate is empty then; an invalid answer is asked for once more.
            if self._finish == "MALFORMED_FUNCTION_CALL":
                raise LLMInvalidResponse(f"{self._vendor} made a call that cannot be read", provider=self._vendor)

    def end(self) -> Iterator[Event]:
        """Yield the end. Raises LLMInvalidResponse when the stream was cut before the model stopped."""
        yield from self._hush()
        if self._finish is None:
            raise cut(self._vendor)
        plain = FinishReason.FINISH_REASON_TOOL_CALLS if self._calls else FinishReason.FINISH_REASON_STOP
        # The vendor says `STOP` also where the model calls a tool.
        finish = _FINISH.get(str(self._finish), plain)
        why = self._why if finish == FinishReason.FINISH_REASON_CONTENT_FILTER else ""
        yield Completed(answer_of(finish, self._usage, self._id, why=why))

    def _part(self, part: Json) -> Iterator[Event]:
        # The SDK writes base64 in the alphabet for addresses; what is kept has the standard one.
        signature = words(part.get("thoughtSignature")).replace("-", "+").replace("_", "/")
        signed = signatures.sealed(_VENDOR, signature) if signature else None
        if call := part.get("functionCall"):
            yield from self._call(table(call), signed)
            return
        if text := words(part.get("text")):
            kind = "reasoning" if part.get("thought") else "text"
            if kind != self._speech:
                yield from self._hush()
                self._speech = kind
                yield PartStarted(index=self._next, part=text_part() if kind == "text" else reasoning_part())
                self._next += 1
            yield Delta(self._next - 1, text)
        if signed and self._speech == "text":  # the one of a text may come behind it, with no text of its own
            yield Signed(self._next - 1, signed)

    def _call(self, call: Json, signed: str | None) -> Iterator[Event]:
        name = read_name(call, self._vendor)
        yield from self._hush()
        self._calls = True
        yield PartStarted(index=self._next, part=call_part(new_call_id(), name, signature=signed))
        yield Delta(self._next, text_of(call.get("args") or {}))
        if signed:
            yield Signed(self._next, signed)
        yield PartEnded(index=self._next)
        self._next += 1

    def _hush(self) -> Iterator[Event]:
        if self._speech:
            self._speech = ""
            yield PartEnded(index=self._next - 1)


def _why(stopped: Json) -> str:
    return said({key: stopped.get(key) for key in _WORDS_OF_STOPS})
