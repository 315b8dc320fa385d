"""An MCP server that wants to be authorized, and the authorization server that does it, on two ports.

It prints the ports as JSON. `/counts` of the authorization server tells what it was asked; after a POST to `/refuse` it
sends everybody back with an error.
"""

import asyncio
import json
import secrets
import socket
import sys
import time

import uvicorn
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    AuthorizeError,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions
from mcp.server.mcpserver import MCPServer
from mcp.shared.auth import OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

LIFETIME = int(sys.argv[1])


class Authority:
    """Approves whoever asks, unless told to refuse."""

    def __init__(self) -> None:
        self.clients, self.codes, self.tokens, self.refreshing = {}, {}, {}, {}
        self.counts = {"registered": 0, "codes": 0, "refreshes": 0}
        self.refuse = False

    async def get_client(self, client_id):
        return self.clients.get(client_id)

    async def register_client(self, client_info):
        self.counts["registered"] += 1
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client, params: AuthorizationParams) -> str:
        if self.refuse:
            raise AuthorizeError(error="access_denied", error_description="the owner says no")
        code = AuthorizationCode(
            code=secrets.token_hex(),
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        self.codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(self, client, authorization_code):
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(self, client, authorization_code):
        self.counts["codes"] += 1
        del self.codes[authorization_code.code]
        return self._issue(client.client_id, authorization_code.resource)

    def _issue(self, client_id, resource):
        token, refresh = f"access-{secrets.token_hex()}", f"refresh-{secrets.token_hex()}"
        expires = int(time.time()) + 3600  # longer than it says, so that no request fails by a moment
        self.tokens[token] = AccessToken(
            token=token, client_id=client_id, scopes=[], expires_at=expires, resource=resource
        )
        self.refreshing[refresh] = RefreshToken(token=refresh, client_id=client_id, scopes=[], resource=resource)
        return OAuthToken(access_token=token, expires_in=LIFETIME, refresh_token=refresh)

    async def load_refresh_token(self, client, refresh_token):
        return self.refreshing.get(refresh_token)

    async def exchange_refresh_token(self, client, refresh_token, scopes):
        self.counts["refreshes"] += 1
        del self.refreshing[refresh_token.token]  # each is good for once
        return self._issue(client.client_id, refresh_token.resource)

    async def load_access_token(self, token):
        return self.tokens.get(token)

    async def verify_token(self, token):
        known = self.tokens.get(token)
        return known if known is not None and known.expires_at >= time.time() else None

    async def revoke_token(self, token):
        self.tokens.pop(token.token, None)


def listening() -> tuple[socket.socket, str]:
    opened = socket.socket()
    opened.bind(("127.0.0.1", 0))
    return opened, f"http://127.0.0.1:{opened.getsockname()[1]}"


async def main() -> None:
    authority = Authority()
    (front, front_url), (back, back_url) = listening(), listening()
    registration = ClientRegistrationOptions(enabled=True)
    routes = create_auth_routes(authority, AnyHttpUrl(front_url), client_registration_options=registration)

    async def counts(_request):
        return JSONResponse(authority.counts)

    async def refuse(_request):
        authority.refuse = True
        return JSONResponse({})

    settings = AuthSettings(
        issuer_url=AnyHttpUrl(front_url),
        resource_server_url=AnyHttpUrl(f"{back_url}/mcp"),
        validate_token_resource=True,
    )
    server = MCPServer("guarded", log_level="ERROR", auth=settings, token_verifier=authority)

    @server.tool()
    def whisper() -> str:
        """Tell a secret."""
        return "psst"

    app = Starlette(routes=[*routes, Route("/counts", counts), Route("/refuse", refuse, methods=["POST"])])
    print(json.dumps({"mcp": f"{back_url}/mcp", "authority": front_url}), flush=True)
    quiet = {"log_level": "error", "lifespan": "auto"}
    await asyncio.gather(
        uvicorn.Server(uvicorn.Config(app, **quiet)).serve(sockets=[front]),
        uvicorn.Server(uvicorn.Config(server.streamable_http_app(), **quiet)).serve(sockets=[back]),
    )


if __name__ == "__main__":
    asyncio.run(main())
