"""A fake of Google's Vertex AI: Gemini and Claude below one address, and the service that gives tokens."""

from __future__ import annotations

import json
import re
from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.google_server import GoogleServer
from tests.fakes.wire import Json, Reply, Request

TOKEN = "ya29.of-test"
_PLACE = re.compile(r"/v1(?:beta1)?/(?:projects/[^/]+/locations/[^/]+/)?publishers/(google|anthropic)/models(.*)")


class VertexServer(GoogleServer):
    """Speaks the wire of Vertex AI; what it says is scripted as of the other vendors."""

    def __init__(self, *, record: bool = True) -> None:
        super().__init__(record=record)
        self._claude = AnthropicServer()
        self._claude.script, self._claude.gone = self.script, self.gone
        self.tokens = 0
        """How many tokens were asked for."""

    async def handle(self, request: Request, out: Reply) -> None:
        """Answer one request."""
        if request.path == "/token":
            self.tokens += 1
            await out.json({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
            return
        match = _PLACE.match(request.path)
        held = request.headers.get("authorization") == f"Bearer {TOKEN}" or "x-goog-api-key" in request.headers
        if not held:
            await out.json({"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "no token"}}, 401)
        elif match is None:
            await out.json({"error": {"code": 404, "status": "NOT_FOUND", "message": request.path}}, 404)
        elif match[1] == "anthropic":
            body = {**request.body, "model": match[2].strip("/").partition(":")[0]}
            await self._claude.handle(Request("POST", "/v1/messages", request.headers, body), out)
        elif match[2].partition("?")[0]:
            await super().handle(
                Request(request.method, f"/v1beta/models{match[2]}", request.headers, request.body), out
            )
        else:
            names = [{"name": f"publishers/google/models/{model['id']}"} for model in self.models]
            await out.json({"publisherModels": names})


@cache
def _key() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return made.private_bytes(serialization.Encoding.PEM, *form).decode()


def service_account(token_uri: str, **rest: str) -> str:
    """Return the JSON of a service account."""
    told: Json = {
        "type": "service_account",
        "project_id": "test-project",
        "private_key_id": "1",
        "private_key": _key(),
        "client_email": "agent@test-project.iam.gserviceaccount.com",
        "token_uri": token_uri,
        **rest,
    }
    return json.dumps(told)
