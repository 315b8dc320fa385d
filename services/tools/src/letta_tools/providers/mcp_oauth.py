"""OAuth of MCP servers through the SDK: grants are kept by the domain, requests go through the guarded client."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.oauth2 import OAuthContext
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
    ProtectedResourceMetadata,
)
from pydantic import AnyUrl

from letta_common.actor import Actor
from letta_tools.domain.mcp.connections import MCPConnection
from letta_tools.domain.mcp.oauth import Ask, AuthorizationNeeded, OAuthGrants

# Authorization servers show it to the person who is asked.
_CLIENT_NAME = "Letta on gRPC"


class AuthorizationWatch(httpx2.Auth):
    """Sends nothing, and says when the server wants to be authorized."""

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Let a request pass. Raises AuthorizationNeeded."""
        response = yield request
        if response.status_code == 401:
            raise needed()


def needed() -> AuthorizationNeeded:
    """Return the error that tells what to do."""
    return AuthorizationNeeded("the MCP server asks for authorization: GET /v1/mcp-servers/connect/{mcp_server_id}")


class _Storage:
    """What was granted, as the SDK wants to have it. It also gives back what the SDK itself does not keep:

    when the token expires and where it is refreshed.
    """

    def __init__(self, grants: OAuthGrants, connection: MCPConnection, grant: str) -> None:
        self.context: OAuthContext | None = None
        self._grants = grants
        self._connection = connection
        self._values: dict[str, Any] = json.loads(grant) if grant else {}
        if self._values.get("server_url") != connection.server_url:
            self._values = {}  # what one address was trusted with is no business of another

    async def get_tokens(self) -> OAuthToken | None:
        context = self.context
        tokens = self._values.get("tokens")
        if context is None or not tokens:
            return None
        context.token_expiry_time = self._values.get("expires_at")
        context.auth_server_url = self._values.get("auth_server_url")
        if metadata := self._values.get("metadata"):
            context.oauth_metadata = OAuthMetadata.model_validate(metadata)
        if resource := self._values.get("resource"):
            context.protected_resource_metadata = ProtectedResourceMetadata.model_validate(resource)
        return OAuthToken.model_validate(tokens)

    async def set_tokens(self, tokens: OAuthToken) -> None:
        context = self.context
        self._values["tokens"] = tokens.model_dump(mode="json")
        self._values["server_url"] = self._connection.server_url
        if context is not None:
            self._values["expires_at"] = context.token_expiry_time
            self._values["auth_server_url"] = context.auth_server_url
            self._values["metadata"] = _dumped(context.oauth_metadata)
            self._values["resource"] = _dumped(context.protected_resource_metadata)
        await self._save()

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        client = self._values.get("client")
        return OAuthClientInformationFull.model_validate(client) if client else None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._values["client"] = client_info.model_dump(mode="json")

    async def _save(self) -> None:
        place = self._connection.organization_id, self._connection.server_id
        await self._grants.save(*place, json.dumps(self._values))


def _dumped(model: OAuthMetadata | ProtectedResourceMetadata | None) -> dict[str, Any] | None:
    return model.model_dump(mode="json", exclude_none=True) if model is not None else None


async def authorization(
    grants: OAuthGrants, connection: MCPConnection, ask: Ask | None, actor: Actor | None = None
) -> httpx2.Auth:
    """Return what authorizes the requests to a server: its grant, a person who is asked, or nothing."""
    grant = await grants.load(connection.organization_id, connection.server_id)
    if not grant and ask is None:
        return AuthorizationWatch()
    storage = _Storage(grants, connection, grant)
    flow = _AskingFlow(grants, connection, ask, actor)
    # The SDK wants an address also where nobody is sent anywhere.
    url = ask.redirect_url if ask is not None else "http://localhost/"
    # OpenID Connect allows loopback addresses to native clients alone.
    local = urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}
    metadata = OAuthClientMetadata(
        client_name=_CLIENT_NAME,
        redirect_uris=[AnyUrl(url)],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        application_type="native" if local else "web",
    )
    provider = OAuthClientProvider(connection.server_url or "", metadata, storage, flow.redirect, flow.callback)
    storage.context = provider.context
    return provider


class _AskingFlow:
    """Sends a person to the authorization server, and waits for them to come back."""

    def __init__(self, grants: OAuthGrants, connection: MCPConnection, ask: Ask | None, actor: Actor | None) -> None:
        self._grants = grants
        self._connection = connection
        self._ask = ask
        self._actor = actor
        self._session = ("", "")

    async def redirect(self, url: str) -> None:
        """Tell the address to open, with a state that finds the way back. Raises AuthorizationNeeded."""
        if self._ask is None or self._actor is None:
            raise needed()
        parts = urlsplit(url)
        # The server chose this address, and a person's browser opens it.
        if parts.scheme not in {"http", "https"}:
            raise AuthorizationNeeded("the MCP server wants to be authorized at an address that is none")
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self._session = await self._grants.begin(
            self._actor, self._connection.server_id, query["state"], self._ask.wait_seconds
        )
        query["state"] = self._session[1]
        await self._ask.tell(urlunsplit(parts._replace(query=urlencode(query))), self._session[0])

    async def callback(self) -> AuthorizationCodeResult:
        """Return what came back. Raises AuthorizationNeeded."""
        if self._actor is None:
            raise needed()
        answer = await self._grants.wait(self._actor, *self._session)
        return AuthorizationCodeResult(
            code=answer.code, state=answer.state, iss=answer.iss if answer.HasField("iss") else None
        )
