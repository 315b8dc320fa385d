"""What pages in a browser may ask of a development server, which takes whoever reaches it for its developer."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

from letta_gateway.cors import Cors
from letta_transcode import HttpError

_LOCAL = ("localhost", ".localhost")
_OTHERS = ("cross-site", "same-site")


class BrowserGate(Protocol):
    """Decides whether a request is served at all, before anything else looks at it."""

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise HttpError to refuse the request."""
        ...


class OpenGate:
    """Lets every request on to where its credential is asked for, which no page has unless it was given one."""

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Do nothing."""


class DevelopmentGate:
    """Refuses requests that a page of another site makes a browser send.

    The name in `Host` must be one of this machine's, so that no other site's name is made to lead here (DNS rebinding).
    A page must be of this server or of an allowed origin; what is not a browser sends neither `Origin` nor
    `Sec-Fetch-Site`, and may call.
    """

    def __init__(self, cors: Cors, hosts: tuple[str, ...]) -> None:
        self._cors = cors
        self._hosts = frozenset(host.lower() for host in hosts)

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise HttpError 403 for a page of another site, or for a name that is not this machine's."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise _forbidden("this development server is not called that; use localhost, or list it in allowed_hosts")
        origin = headers.get("origin")
        if origin is not None:
            if not (self._cors.allows(origin) or _same(origin, host)):
                raise _forbidden("pages of this origin may not call; list it in allowed_origins")
        elif headers.get("sec-fetch-site") in _OTHERS and not _is_link(method, headers):
            raise _forbidden("pages of other sites may not call")

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        if name in self._hosts or name == _LOCAL[0] or name.endswith(_LOCAL[1]):
            return True
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return False


def _name(host: str) -> str:
    """Return the name or address in a `Host` header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower() if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


def _same(origin: str, host: str) -> bool:
    """Say whether a page is of this server."""
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _is_link(method: str, headers: Mapping[str, str]) -> bool:
    """Say whether a person followed a link, which shows what it leads to and no page can read."""
    document = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest", "document") == "document"
    return document and method in ("GET", "HEAD")


def _forbidden(text: str) -> HttpError:
    return HttpError(403, {"detail": text})
