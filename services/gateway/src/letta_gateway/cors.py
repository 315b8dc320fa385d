"""Which pages of other origins may call."""

from __future__ import annotations

from collections.abc import Mapping

Headers = list[tuple[bytes, bytes]]

_METHODS = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
# Chromium keeps such an answer two hours at most; ten minutes let a changed setting count soon.
_MAX_AGE = b"600"
_EXPOSED = b"x-request-id, retry-after"


class Cors:
    """Answers preflight requests and marks the responses that a page may read."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._any = "*" in allowed
        self._allowed = frozenset(allowed)

    def allows(self, origin: str) -> bool:
        """Say whether pages of an origin may call."""
        return self._any or origin in self._allowed

    def headers(self, origin: str) -> Headers:
        """Return the headers of a response to a page of an origin."""
        if not origin:
            return []
        if not self.allows(origin):
            return [(b"vary", b"origin")]
        exposed = (b"access-control-expose-headers", _EXPOSED)
        # With `*` browsers show a page no answer to credentials, so there is no header that allows them.
        if self._any:
            return [(b"access-control-allow-origin", b"*"), exposed]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            exposed,
            (b"vary", b"origin"),
        ]

    def preflight(self, headers: Mapping[str, str]) -> Headers:
        """Return the further headers of the answer to an allowed preflight request."""
        wanted = headers.get("access-control-request-headers", "*").encode("latin-1")
        return [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", _MAX_AGE),
        ]


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Say whether a request asks only whether another would be allowed."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers
