"""Turns the credentials of an HTTP request into the metadata of a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from letta_transcode import HttpError

Metadata = list[tuple[str, str | bytes]]

_USER = re.compile(r"user-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# The three parts of a JSON Web Token.
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_KEY_PREFIX = "lk_"
_LONGEST = 4096


class Authenticator(Protocol):
    """What the gateway needs to say who calls."""

    async def metadata(self, headers: Mapping[str, str]) -> Metadata:
        """Return the metadata that tells services who calls. Raises HttpError to refuse the request."""
        ...


class PassCredentials:
    """Passes the credential on; the boundary of the called service exchanges it."""

    async def metadata(self, headers: Mapping[str, str]) -> Metadata:
        """Return the credential as `authorization`, from the header of that name or from `x-bare-password`."""
        credential = _credential(headers)
        return [("authorization", f"Bearer {credential}")] if credential else []


class DevCredentials:
    """Credentials of a development server on loopback, which needs none.

    API keys of this deployment count. Others, which clients send because they must send something, do not. `user_id`
    names the user; without it the default user calls.
    """

    async def metadata(self, headers: Mapping[str, str]) -> Metadata:
        """Return the credential, or else the user's id, as metadata."""
        credential = _credential(headers)
        if credential.startswith(_KEY_PREFIX) or _TOKEN.fullmatch(credential):
            return [("authorization", f"Bearer {credential}")]
        user = headers.get("user_id", "")
        if not user:
            return []
        if not _USER.fullmatch(user):
            raise HttpError(400, {"detail": "The header user_id should be user-<uuid>"})
        return [("user_id", user)]


def _credential(headers: Mapping[str, str]) -> str:
    """Return the credential of a request, or an empty string. Raises HttpError 401 when it is malformed."""
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise _unauthorized()
    credential = credential.strip()
    if not credential:
        # How clients of the retired Letta V1 server sent the password of a deployment.
        word, _, password = headers.get("x-bare-password", "").partition(" ")
        credential = password.strip() if word.lower() == "password" else ""
    if len(credential) > _LONGEST or not (credential.isascii() and credential.isprintable()):
        raise _unauthorized()
    return credential


def _unauthorized() -> HttpError:
    return HttpError(401, {"detail": "Unauthorized"}, [("www-authenticate", "Bearer")])
