"""Google's Vertex AI: Gemini and Claude with one service account, each through its vendor's own SDK."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

import anthropic
import httpx2
from google import genai
from google.auth import exceptions as google_auth
from google.genai.types import HttpOptions
from google.oauth2 import service_account

from letta.llm.v1.generation_service_pb2 import Generation
from letta_common.errors import CapabilityMissing, InvalidArgument, LLMAuthentication, LLMUnavailable
from letta_llm_gateway.domain.answers import Call, Event
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Vector
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.vendors.anthropic import RULES, AnthropicProvider
from letta_llm_gateway.providers.vendors.google import GoogleProvider

_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_TOKENS = "https://oauth2.googleapis.com/token"
_LOCATION = re.compile(r"[a-z]+(-[a-z]+\d+)?")
_PROJECT = re.compile(r"[a-z0-9.:-]+")
_DEFAULT_LOCATION = "global"


class VertexProvider:
    """Speaks with the models of one project, in one location."""

    def __init__(self, account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> None:
        self._vendor = account.name
        location, address = account.region or _DEFAULT_LOCATION, account.base_url.rstrip("/")
        if not _LOCATION.fullmatch(location):
            raise InvalidArgument(
                f"provider {account.name} needs a location of Google Cloud such as europe-west1, not {location!r}",
                field="region",
            )
        options = HttpOptions(base_url=address or None, httpx_async_client=http)
        key, credentials, project = _identity(account)
        self._claude: AnthropicProvider | None = None
        if key:
            client = genai.Client(vertexai=True, api_key=key, http_options=options)
        else:
            client = genai.Client(
                vertexai=True, project=project, location=location, credentials=credentials, http_options=options
            )
            claude = anthropic.AsyncAnthropicVertex(
                region=location,
                project_id=project,
                credentials=credentials,
                base_url=f"{address}/v1" if address else None,
                max_retries=0,
                timeout=http.timeout,
                http_client=http,
            )
            self._claude = AnthropicProvider(account, http, fragments, claude)
        self._gemini = GoogleProvider(account, http, fragments, client)

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        with self._authorized():
            return await self._speaker(call.model).generate(call)

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        with self._authorized():
            async with aclosing(self._speaker(call.model).stream(call)) as events:
                async for event in events:
                    yield event

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:
        """Turn texts into vectors."""
        with self._authorized():
            return await self._gemini.embed(model, texts)

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt as Gemini counts them; Claude's are not counted here."""
        if call.model.startswith("claude"):
            return None
        with self._authorized():
            return await self._gemini.count(call)

    async def models(self) -> list[ListedModel]:
        """List Google's models; Claude's are in no list."""
        with self._authorized():
            return await self._gemini.models()

    def rules(self, model: str) -> checks.Rules:
        """Return what the vendor's reference says of requests."""
        return RULES if model.startswith("claude") else self._gemini.rules(model)

    async def close(self) -> None:
        """Close connections."""
        await self._gemini.close()

    def _speaker(self, model: str) -> GoogleProvider | AnthropicProvider:
        if not model.startswith("claude"):
            return self._gemini
        if self._claude is None:
            raise CapabilityMissing(
                f"{self._vendor} has an API key, and Claude takes none; set api_key to the JSON of a service account",
                provider=self._vendor,
            )
        return self._claude

    @contextmanager
    def _authorized(self) -> Iterator[None]:
        """Turn what Google's authorization raises into the errors of the contract."""
        try:
            yield
        except google_auth.TransportError as error:
            raise LLMUnavailable(
                f"{self._vendor} cannot reach Google's token service", provider=self._vendor
            ) from error
        except google_auth.GoogleAuthError as error:
            raise LLMAuthentication(
                f"{self._vendor} gets no token from Google; check the service account and its permissions",
                provider=self._vendor,
            ) from error


def _identity(account: Account) -> tuple[str, Any, str]:
    """Return API key, credentials and project; what the machine may do is for the deployment's accounts alone.

    Raises:
        LLMAuthentication: the account has no key, or one that is no service account.
    """
    given, project = account.api_key.strip(), account.access_key
    if given and not given.startswith("{"):
        return given, None, ""
    if not given and (account.organization_id or not project):
        raise LLMAuthentication(
            f"provider {account.name} has no key; set api_key to the JSON of a service account or to an API key",
            provider=account.name,
        )
    if not given:
        return "", None, _checked(account, project)
    told = _service_account(given)
    if told and account.organization_id:
        told["token_uri"] = _TOKENS
    try:
        credentials: Any = service_account.Credentials.from_service_account_info(told, scopes=_SCOPES)  # type: ignore[no-untyped-call]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LLMAuthentication(
            f"the api_key of provider {account.name} is not the JSON of a service account", provider=account.name
        ) from error
    return "", credentials, _checked(account, project or str(told.get("project_id") or ""))


def _service_account(text: str) -> dict[str, Any]:
    """Return the fields of a service account; nothing for other types, which name programs to run and places to ask."""
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) and told.get("type") == "service_account" else {}


def _checked(account: Account, project: str) -> str:
    if not _PROJECT.fullmatch(project):
        raise InvalidArgument(f"provider {account.name} names no project of Google Cloud", field="access_key")
    return project


def make(account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> VertexProvider:
    """Make the provider of an account."""
    return VertexProvider(account, http, fragments)
