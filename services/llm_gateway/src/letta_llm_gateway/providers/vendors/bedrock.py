"""Amazon Bedrock's Converse, for all of its models. AWS's SDK signs and reads frames; HTTP is the gateway's own."""

from __future__ import annotations

import asyncio
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

from letta.llm.v1.generation_service_pb2 import Generation
from letta_common.errors import CapabilityMissing, InvalidArgument, LLMAuthentication, LLMInvalidResponse
from letta_llm_gateway.domain.answers import Call, Event
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Vector
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.errors import refusal, transport_errors
from letta_llm_gateway.providers.fitting.reasons import reason_of
from letta_llm_gateway.providers.wires import bedrock as bedrock_wire
from letta_llm_gateway.providers.wires import wire_json
from letta_llm_gateway.providers.wires.bodies import encoded

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
        async with self._asked("POST", self._path(call.model, "converse"), self._request(call), call=call) as response:
            body = wire_json.read(await response.aread(), self._vendor)
            return bedrock_wire.answer(body, vendor=self._vendor, response_id=_id(response))

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        asked = self._request(call)
        frames = EventStreamBuffer()
        async with self._asked("POST", self._path(call.model, "converse-stream"), asked, call=call) as response:
            reader = bedrock_wire.StreamReader(vendor=self._vendor, response_id=_id(response))
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
            vectors = body.get("embeddings")
            vectors = vectors.get("float") if isinstance(vectors, dict) else vectors
        elif "titan-embed" in model:
            bodies = [await self._invoke(model, {"inputText": text}) for text in texts]
            vectors = [body.get("embedding") for body in bodies]
        else:
            raise CapabilityMissing(
                f"{model} embeds no texts; choose one of amazon.titan-embed or cohere.embed", handle=model
            )
        if not isinstance(vectors, list) or len(vectors) != len(texts) or not all(vectors):
            raise LLMInvalidResponse(f"{self._vendor} answered without embeddings", provider=self._vendor)
        return vectors

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt as the vendor counts them; it does so for some models."""
        body = bedrock_wire.request(call.model, call.prompt, self._fragments)
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
        names = ((row.get("inferenceProfileId"), row.get("inferenceProfileName")) for row in profiles)
        return [*found, *(ListedModel(str(id), display_name=name or "") for id, name in names if id)]

    def rules(self, model: str) -> checks.Rules:  # noqa: ARG002
        """Return what the vendor's reference says of requests."""
        return checks.BEDROCK

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
        rows = body.get(key) if isinstance(body, dict) else None
        return [row for row in rows or () if isinstance(row, dict)]

    def _request(self, call: Call) -> bytes:
        limit = call.max_output_tokens
        return bedrock_wire.request(call.model, call.prompt, self._fragments, max_tokens=limit).encoded()

    async def _invoke(self, model: str, asked: Any) -> dict[str, Any]:
        async with self._asked("POST", self._path(model, "invoke"), encoded(asked)) as response:
            body = wire_json.read(await response.aread(), self._vendor)
        return body if isinstance(body, dict) else {}

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


def _id(response: httpx2.Response) -> str:
    return str(response.headers.get("x-amzn-requestid", ""))


def _model(row: dict[str, Any]) -> ListedModel:
    embedding = "EMBEDDING" in (row.get("outputModalities") or ())
    return ListedModel(str(row["modelId"]), embedding=embedding, display_name=row.get("modelName") or "")


def _refused(vendor: str, response: httpx2.Response, data: bytes, call: Call | None) -> Exception:
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {}
    code = (
        str(response.headers.get("x-amzn-errortype") or body.get("__type") or "").partition(":")[0].rpartition("#")[2]
    )
    said = reason_of(data)
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
