"""Amazon Bedrock's Converse, for all of its models. AWS's SDK signs and reads frames; HTTP is the gateway's own."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote

import botocore.session
import httpx2
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError
from botocore.exceptions import BotoCoreError

from letta.common.v1.message_pb2 import ContentPart, ImageContent
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation, Prompt, ToolChoiceMode
from letta_common.errors import CapabilityMissing, InvalidArgument, LLMAuthentication, LLMInvalidResponse
from letta_common.values.json_texts import json_object
from letta_llm_gateway.domain.answers import Call, Completed, Delta, Event, Signed
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Vector
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.errors import refusal, transport_errors
from letta_llm_gateway.providers.fitting.reasons import reason_of
from letta_llm_gateway.providers.parts import answer_of, call_part, reasoning_part, redacted_part, text_part
from letta_llm_gateway.providers.wires import signatures, wire_json
from letta_llm_gateway.providers.wires.arguments import finished, new_call_id, text_of
from letta_llm_gateway.providers.wires.blocks import BlockTurn, block_turns
from letta_llm_gateway.providers.wires.bodies import Body, encoded
from letta_llm_gateway.providers.wires.reading import OpenParts, cut, finish_of, read_name, read_object, usage_of
from letta_llm_gateway.providers.wires.strictness import is_strict
from letta_llm_gateway.providers.wires.told import (
    CALLED_NAMES,
    answer_schema,
    given_arguments,
    held_image,
    limit_of,
    schema,
    thoughts_of,
)
from letta_llm_gateway.providers.wires.turns import Turns, joined
from letta_llm_gateway.providers.wires.wire_json import count, rows, table, words

Json = dict[str, Any]
_VENDOR = "bedrock"
_CLAUDE, _NOVA = "anthropic.claude", "amazon.nova"
_CACHE_POINT: Json = {"cachePoint": {"type": "default"}}
# As Anthropic's messages, Converse holds a model to a schema, but not to JSON of any kind.
RULES = checks.Rules(re.compile(r"[a-zA-Z0-9_-]{1,64}"), forms=frozenset({"text", "json_schema"}))
_EMPTY: Json = {"type": "object", "properties": {}}
_IMAGES = frozenset({"png", "jpeg", "gif", "webp"})
_FINISH = {
    "end_turn": FinishReason.FINISH_REASON_STOP,
    "stop_sequence": FinishReason.FINISH_REASON_STOP,
    "tool_use": FinishReason.FINISH_REASON_TOOL_CALLS,
    "max_tokens": FinishReason.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": FinishReason.FINISH_REASON_LENGTH,
    "guardrail_intervened": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": FinishReason.FINISH_REASON_CONTENT_FILTER,
}
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})
_ID = "x-amzn-requestid"
_LIST_SECONDS = 10.0
_COUNTED = ("system", "toolConfig", "additionalModelRequestFields")
# A region becomes part of a host name, so nothing but a region may stand there.
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")
_DEFAULT_REGION = "us-east-1"
_STATUS = {
    "throttlingexception": 429,
    "modelnotreadyexception": 429,
    "servicequotaexceededexception": 429,
    "modeltimeoutexception": 408,
    "accessdeniedexception": 403,
    "unrecognizedclientexception": 403,
    "invalidsignatureexception": 403,
    "expiredtokenexception": 403,
    "resourcenotfoundexception": 404,
    "validationexception": 400,
    "modelerrorexception": 502,
    "modelstreamerrorexception": 502,
    "internalserverexception": 500,
    "serviceunavailableexception": 503,
}
"""What the vendor's words mean: a stream has no status, and some statuses say less."""


class BedrockProvider:
    """Speaks with one account, in one region."""

    def __init__(self, account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> None:
        self._vendor, self._http, self._fragments = account.name, http, fragments
        self._signer = _Signer(account)
        self._runtime, self._control = _addresses(account)

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        path, asked = self._path(call.model, "converse"), await self._request(call)
        async with self._asked("POST", path, asked, call=call) as response:
            body = wire_json.read(await response.aread(), self._vendor)
            return answer(body, vendor=self._vendor, response_id=response.headers.get(_ID, ""))

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        asked = await self._request(call)
        frames = EventStreamBuffer()
        async with self._asked("POST", self._path(call.model, "converse-stream"), asked, call=call) as response:
            reader = StreamReader(vendor=self._vendor, response_id=response.headers.get(_ID, ""))
            async for chunk in response.aiter_bytes():
                frames.add_data(chunk)
                for message in frames:
                    kind, body = self._read(message, call.model)
                    for event in reader.feed(kind, body):
                        yield event
            for event in reader.end():
                yield event

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:
        """Turn texts into vectors, with Amazon's and Cohere's models."""
        if "cohere.embed" in model:
            # One input type for passages and queries alike: the contract does not say which of them a text is.
            body = await self._invoke(model, {"texts": list(texts), "input_type": "search_document", "truncate": "END"})
            held = body.get("embeddings")
            vectors = held.get("float") if isinstance(held, dict) else held
        elif "titan-embed" in model:
            vectors = [(await self._invoke(model, {"inputText": text})).get("embedding") for text in texts]
        else:
            raise CapabilityMissing(
                f"{model} embeds no texts; choose one of amazon.titan-embed or cohere.embed", handle=model
            )
        return vectors if isinstance(vectors, list) else []

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt as the vendor counts them; it does so for some models."""
        body = await request(call.model, call.prompt, self._fragments)
        asked = b'{"input":{"converse":%s}}' % body.only(_COUNTED).encoded()
        async with self._asked("POST", self._path(call.model, "count-tokens"), asked, call=call) as response:
            found = wire_json.read(await response.aread(), self._vendor).get("inputTokens")
            return int(found) if found else None

    async def models(self) -> list[ListedModel]:
        """List what the region offers, and the profiles through which some of it must be called."""
        offered = await self._listed("/foundation-models", "modelSummaries")
        # 1,000 is the largest page of profiles.
        profiles = await self._listed("/inference-profiles?maxResults=1000", "inferenceProfileSummaries")
        found = [_model(row) for row in offered if row.get("modelId") and "TEXT" in (row.get("inputModalities") or ())]
        names = (row.get("inferenceProfileId") for row in profiles)
        return [*found, *(ListedModel(str(name)) for name in names if name)]

    def rules(self, model: str) -> checks.Rules:  # noqa: ARG002
        """Return what the vendor's reference says of requests."""
        return RULES

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    def _path(self, model: str, verb: str) -> str:
        # Names of inference profiles may be ARNs, with colons and slashes.
        return f"{self._runtime}/model/{quote(model, safe='')}/{verb}"

    async def _listed(self, path: str, key: str) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(_LIST_SECONDS), self._asked("GET", self._control + path) as response:
                body = wire_json.read(await response.aread(), self._vendor)
        except TimeoutError as error:
            raise refusal(self._vendor, 408, "no list of models in time") from error
        return rows(table(body).get(key))

    async def _request(self, call: Call) -> bytes:
        return (await request(call.model, call.prompt, self._fragments, max_tokens=call.max_output_tokens)).encoded()

    async def _invoke(self, model: str, asked: Any) -> dict[str, Any]:
        async with self._asked("POST", self._path(model, "invoke"), encoded(asked)) as response:
            return table(wire_json.read(await response.aread(), self._vendor))

    @asynccontextmanager
    async def _asked(
        self, method: str, url: str, data: bytes = b"", *, call: Call | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """Send a signed request and give its answer, closed in the end. Raises the errors of the contract."""
        with _errors(self._vendor), transport_errors(self._vendor):
            headers = await self._signer.headers(method, url, data)
            async with self._http.stream(method, url, content=data, headers=headers) as response:
                if response.status_code >= 300:
                    raise _refused(self._vendor, response, await response.aread(), call)
                yield response

    def _read(self, message: EventStreamMessage, model: str) -> tuple[str, Any]:
        """Return kind and body of a framed event. Raises the error that the vendor put into the stream."""
        headers, body = message.headers, wire_json.read(message.payload or b"{}", self._vendor)
        kind = headers.get(":message-type")
        if kind == "event":
            return str(headers.get(":event-type")), body
        code = str(headers.get(":exception-type") or headers.get(":error-code") or "")
        text = body.get("message") if isinstance(body, dict) else headers.get(":error-message")
        raise refusal(self._vendor, _STATUS.get(code.lower(), 500), f"{code}: {text or ''}", model=model)


class _Signer:
    """Signs requests for an account; what the machine itself may do is for the deployment's own accounts alone."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._region = account.region or _DEFAULT_REGION
        self._keys: Any = None
        if account.access_key and account.api_key:
            self._keys = Credentials(account.access_key, account.api_key)
        elif not account.api_key and (account.organization_id or account.access_key):
            raise self._missing()

    async def headers(self, method: str, url: str, data: bytes) -> dict[str, str]:
        """Return the headers of a request, signed. Raises LLMAuthentication when there is nothing to sign with."""
        headers = {"content-type": "application/json"}
        if not self._account.access_key and self._account.api_key:  # an API key of Bedrock
            return {**headers, "authorization": f"Bearer {self._account.api_key}"}
        # The AWS SDK may ask the machine's metadata service, which blocks.
        keys = self._keys or await asyncio.to_thread(self._of_the_machine)
        request = AWSRequest(method, url, headers, data)
        # The hosts `bedrock` and `bedrock-runtime` are both signed for as `bedrock`.
        SigV4Auth(keys, "bedrock", self._region).add_auth(request)
        return dict(request.headers.items())

    def _of_the_machine(self) -> Any:
        found = botocore.session.Session().get_credentials()
        if found is None:
            raise self._missing()
        frozen = found.get_frozen_credentials()
        if getattr(found, "method", "") in {"env", "shared-credentials-file", "config-file"}:
            self._keys = frozen  # these do not expire
        return frozen

    def _missing(self) -> LLMAuthentication:
        return LLMAuthentication(
            f"provider {self._account.name} has no key; set access_key and api_key to a key of AWS and its secret, "
            "or api_key alone to an API key of Bedrock",
            provider=self._account.name,
        )


def _addresses(account: Account) -> tuple[str, str]:
    """Return where models are called and where they are listed."""
    if account.base_url:
        return account.base_url.rstrip("/"), account.base_url.rstrip("/")
    if not _REGION.fullmatch(account.region):
        raise InvalidArgument(
            f"provider {account.name} needs a region of AWS such as us-east-1, not {account.region!r}", field="region"
        )
    # AWS's Chinese regions have a domain of their own.
    domain = "amazonaws.com.cn" if account.region.startswith("cn-") else "amazonaws.com"
    return f"https://bedrock-runtime.{account.region}.{domain}", f"https://bedrock.{account.region}.{domain}"


def _model(row: dict[str, Any]) -> ListedModel:
    embedding = "EMBEDDING" in (row.get("outputModalities") or ())
    return ListedModel(str(row["modelId"]), embedding=embedding)


def _refused(vendor: str, response: httpx2.Response, data: bytes, call: Call | None) -> Exception:
    told = json_object(data.decode(errors="replace")) or {}
    named = response.headers.get("x-amzn-errortype") or told.get("__type") or ""
    code, said = str(named).partition(":")[0].rpartition("#")[2], reason_of(data)
    status = _STATUS.get(code.lower(), response.status_code)
    model, names = (call.model, [tool.name for tool in call.prompt.tools]) if call else ("", [])
    return refusal(vendor, status, f"{code}: {said}" if code else said, response.headers, model=model, tools=names)


@contextmanager
def _errors(vendor: str) -> Iterator[None]:
    try:
        yield
    except ParserError as error:
        raise LLMInvalidResponse(f"{vendor} streamed what is no event of AWS", provider=vendor) from error
    except BotoCoreError as error:
        raise LLMAuthentication(
            f"provider {vendor} has no usable credentials of AWS: {type(error).__name__}", provider=vendor
        ) from error


def make(account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> BedrockProvider:
    """Make the provider of an account."""
    return BedrockProvider(account, http, fragments)


async def request(model: str, prompt: Prompt, fragments: Fragments, *, max_tokens: int | None = None) -> Body:
    """Build the body of Converse. Models that cache get a mark after tools and system and after the history."""
    settings = prompt.settings
    checks.check(prompt, RULES)
    caches = _CLAUDE in model or _NOVA in model
    call: Json = {}
    if prompt.system:
        call["system"] = [{"text": prompt.system}, *([_CACHE_POINT] if caches else [])]
    limits: Json = {}
    if limit := limit_of(settings, max_tokens):
        limits["maxTokens"] = limit
    if thoughts := thoughts_of(settings) if _CLAUDE in model else None:
        told, least = thoughts
        limits["maxTokens"] = max(limit or 0, least)
        call["additionalModelRequestFields"] = {"thinking": told}
    elif settings.HasField("temperature"):  # thinking allows the default alone
        limits["temperature"] = min(1.0, settings.temperature)
    if limits:
        call["inferenceConfig"] = limits
    if output := _output(prompt):
        call["outputConfig"] = output
    if (tools := _tools(prompt)) and prompt.tool_choice.mode != ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
        call["toolConfig"] = {"tools": tools, **_choice(prompt, forced=not thoughts)}
    elif tools or (mentioned := dict.fromkeys((await fragments.of(CALLED_NAMES, prompt.messages)).values())):
        # calls in the history are refused without the declarations
        call["toolConfig"] = {"tools": tools or [_spec(name, _EMPTY) for name in mentioned]}
    return Body(call, "messages", await _messages(prompt, fragments, caches=caches))


def _output(prompt: Prompt) -> Json:
    settings = prompt.settings
    output: Json = {"effort": settings.effort} if settings.HasField("effort") else {}
    if (wanted := answer_schema(prompt)) is not None:
        name = settings.response_format.json_schema.json_schema.name
        told = {"schema": json.dumps(wanted), "name": name or "answer"}
        output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": told}}
    return output


def _tools(prompt: Prompt) -> list[Json]:
    tools: list[Json] = []
    for tool in prompt.tools:
        parameters = schema(tool)
        more: Json = {"description": tool.description} if tool.description else {}
        if is_strict(tool, prompt.settings, parameters):
            more["strict"] = True
        tools.append(_spec(tool.name, parameters, **more))
    return tools


def _spec(name: str, parameters: Json, **more: Any) -> Json:
    return {"toolSpec": {"name": name, "inputSchema": {"json": parameters}, **more}}


def _choice(prompt: Prompt, *, forced: bool) -> Json:
    mode = prompt.tool_choice.mode
    if forced and mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL:
        return {"toolChoice": {"tool": {"name": prompt.tool_choice.name}}}
    if forced and mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED:
        return {"toolChoice": {"any": {}}}
    return {"toolChoice": {"auto": {}}}


async def _messages(prompt: Prompt, fragments: Fragments, *, caches: bool) -> bytes:
    """Return messages in turns: neighbours of one role are one message, and the user begins."""
    turns = await fragments.of(_FORM, prompt.messages)
    if turns.first is None or turns.first.role == "assistant":
        turns = joined([Turns(_NOBODY), turns])
    if caches and (turns.last or turns.first or _NOBODY).role == "user":
        turns = joined([turns, Turns(BlockTurn("user", others=encoded(_CACHE_POINT)))])
    return turns.encoded()


def _block(part: ContentPart) -> Json | None:
    match part.WhichOneof("part"):
        case "text" if part.text.text.strip():  # the vendor refuses blank text
            return {"text": part.text.text}
        case "image":
            return _image(part.image)
        case "tool_call":
            call = part.tool_call
            return {"toolUse": {"toolUseId": call.id, "name": call.name, "input": given_arguments(call.input)}}
        case "reasoning":
            return _thought(part.reasoning.reasoning, part.reasoning.signature)
        case "redacted_reasoning":
            held = signatures.opened(_VENDOR, part.redacted_reasoning.data)
            return {"reasoningContent": {"redactedContent": held}} if held else None
    return None


def _thought(text: str, signature: str) -> Json | None:
    """Return reasoning as it came; what another vendor signed, or nobody, is left out."""
    held = signatures.opened(_VENDOR, signature)
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": held}}} if held else None


def _result(call_id: str, content: str, *, failed: bool) -> Json:
    told: Json = {"status": "error"} if failed else {}
    return {"toolResult": {"toolUseId": call_id, "content": [{"text": content or " "}], **told}}


def _image(image: ImageContent) -> Json | None:
    if image.source.HasField("url"):
        raise CapabilityMissing("Bedrock takes no addresses of images; send the image itself, in base64")
    media_type, data = held_image(image)
    if not data:
        return None
    form = media_type.rpartition("/")[2].replace("jpg", "jpeg")
    if form not in _IMAGES:
        raise CapabilityMissing(f"Bedrock sees no images of type {media_type}; use one of {sorted(_IMAGES)}")
    return {"image": {"format": form, "source": {"bytes": base64.b64encode(data).decode()}}}


_FORM = block_turns(_block, _result)
_NOBODY = BlockTurn("user", others=b'{"text":"..."}')
"""What a user says where the assistant would begin."""


def answer(body: Any, *, vendor: str, response_id: str = "") -> Generation:
    """Read an answer. Raises LLMInvalidResponse when it has no content or cannot be read."""
    body = table(body)
    content = table(table(body.get("output")).get("message")).get("content")
    if not isinstance(content, list):
        raise LLMInvalidResponse(f"{vendor} answered without content", provider=vendor)
    parts = [part for block in rows(content) if (part := _part(block, vendor))]
    calls = any(part.HasField("tool_call") for part in parts)
    finish = _finish(body.get("stopReason"), calls=calls, vendor=vendor)
    return finished(answer_of(finish, usage(body.get("usage")), response_id, parts), objects=True)


def _part(block: Json, vendor: str) -> ContentPart | None:
    if "text" in block:
        return text_part(words(block["text"]))
    if call := table(block.get("toolUse")):
        return call_part(new_call_id(), read_name(call, vendor), text_of(call.get("input")))
    if thought := table(block.get("reasoningContent")):
        if redacted := words(thought.get("redactedContent")):
            return redacted_part(signatures.sealed(_VENDOR, redacted))
        told = table(thought.get("reasoningText"))
        signature = words(told.get("signature"))
        return reasoning_part(words(told.get("text")), signatures.sealed(_VENDOR, signature) if signature else None)
    return None


def _finish(reason: Any, *, calls: bool, vendor: str) -> FinishReason.ValueType:
    if reason in _MALFORMED:
        raise LLMInvalidResponse(f"{vendor} could not finish: {reason}", provider=vendor)
    return finish_of(reason, _FINISH, calls=calls)


def usage(counts: Any) -> TokenUsage | None:
    """Read the counts of tokens; the vendor counts cached ones apart, the contract counts them in."""
    counts = table(counts)
    return usage_of(
        count(counts.get("inputTokens")),
        count(counts.get("outputTokens")),
        read=count(counts.get("cacheReadInputTokens")),
        written=count(counts.get("cacheWriteInputTokens")),
    )


class StreamReader:
    """Reads the events of a stream; only blocks of calls are announced, the others begin with their first piece."""

    def __init__(self, *, vendor: str, response_id: str = "") -> None:
        self._vendor, self._id = vendor, response_id
        self._parts = OpenParts()
        self._stop: Any = None
        self._usage: TokenUsage | None = None

    def feed(self, kind: str, body: Any) -> Iterator[Event]:
        """Yield what an event says."""
        body = read_object(body, self._vendor)
        given = body.get("contentBlockIndex")
        at = given if isinstance(given, int) else 0
        match kind:
            case "contentBlockDelta":
                yield from self._delta(at, table(body.get("delta")))
            case "contentBlockStart":
                if call := table(table(body.get("start")).get("toolUse")):
                    yield from self._parts.begin(at, call_part(new_call_id(), read_name(call, self._vendor)))
            case "contentBlockStop":
                yield from self._parts.end(at)
            case "messageStop":
                self._stop = body.get("stopReason") or "end_turn"
            case "metadata":
                self._usage = usage(body.get("usage")) or self._usage

    def end(self) -> Iterator[Event]:
        """Yield the end. Raises LLMInvalidResponse when the stream was cut before the model stopped."""
        yield from self._parts.end_all()
        if self._stop is None:
            raise cut(self._vendor)
        finish = _finish(self._stop, calls=self._parts.calls, vendor=self._vendor)
        yield Completed(answer_of(finish, self._usage, self._id), objects=True)

    def _delta(self, at: int, delta: Json) -> Iterator[Event]:
        thought = table(delta.get("reasoningContent"))
        if redacted := words(thought.get("redactedContent")):
            yield from self._parts.begin(at, redacted_part(signatures.sealed(_VENDOR, redacted)))
        elif "text" in delta or "text" in thought or "signature" in thought:
            if at not in self._parts:
                yield from self._parts.begin(at, text_part() if "text" in delta else reasoning_part())
            if piece := words(delta.get("text")) or words(thought.get("text")):
                yield Delta(self._parts[at], piece)
            if signature := words(thought.get("signature")):
                yield Signed(self._parts[at], signatures.sealed(_VENDOR, signature))
        elif at in self._parts and (given := table(delta.get("toolUse")).get("input")):
            yield Delta(self._parts[at], text_of(given))
