"""Identities of services: which service of the deployment makes this one call, for this actor, now.

The value of `x-letta-service-bin` is ASCII: `<service>:<window>:<proof>`.

- `service` is the name of the caller.
- `window` is the number of whole minutes since 1970 in UTC. The window before and the one after are accepted too, so
  clocks may differ by a minute, and an identity is worth two minutes at most where they agree.
- `proof` is 64 hexadecimal digits: HMAC-SHA256 over `<service>:<window>:<method>:<digest>`, where `method` is the
  called one, `package.Service/Method`, and `digest` is the hexadecimal SHA-256 of the bytes of `x-letta-actor-bin` in
  the same call, or of no bytes when there are none.

The key is HMAC-SHA256 of `letta.service-identity` under the secret of the deployment, so that no other use of the
secret makes a proof. None of the four parts can contain a colon, so no two calls share one text.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import lru_cache

from letta_common.clock import Clock
from letta_common.errors import Unauthenticated

WINDOW_SECONDS = 60
# The cached proofs of one window: methods times signed actors, of which few are in use within a minute.
_MAX_KEPT = 4096
_FORM = re.compile(rb"([a-z0-9_-]{1,64}):([0-9]{1,12}):[0-9a-f]{64}")


class ServiceIdentity:
    """Makes the identities that one service shows, each once a window."""

    def __init__(self, name: str, secret: bytes, clock: Clock) -> None:
        self._name = name
        self._key = _key(secret)
        self._clock = clock
        self._made = lru_cache(_MAX_KEPT)(self._make)

    def of(self, method: str, signed_actor: bytes) -> bytes:
        """Return the identity for a call of `package.Service/Method` with this actor context, empty without one."""
        return self._made(_window(self._clock), method, signed_actor)

    def _make(self, window: int, method: str, signed_actor: bytes) -> bytes:
        return _identity(self._key, self._name, window, method, signed_actor)


class ServiceIdentities:
    """Verifies the identities that callers show, each once a window."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._key = _key(secret)
        self._clock = clock
        self._checked = lru_cache(_MAX_KEPT)(self._check)

    def name(self, identity: bytes, method: str, signed_actor: bytes) -> str:
        """Return the name of the service that makes this call. Raises Unauthenticated."""
        return self._checked(_window(self._clock), identity, method, signed_actor)

    def _check(self, window: int, identity: bytes, method: str, signed_actor: bytes) -> str:
        form = _FORM.fullmatch(identity)
        if form is None:
            raise Unauthenticated("the service identity is malformed")
        name, made = form[1].decode(), int(form[2])
        if not hmac.compare_digest(identity, _identity(self._key, name, made, method, signed_actor)):
            raise Unauthenticated(
                "the service identity is not genuine: it is of another deployment, method or actor context"
            )
        if abs(made - window) > 1:
            raise Unauthenticated("the service identity is of another minute; make a new one, or set the clock right")
        return name


def _window(clock: Clock) -> int:
    return int(clock.now().timestamp()) // WINDOW_SECONDS


def _key(secret: bytes) -> bytes:
    return hmac.digest(secret, b"letta.service-identity", hashlib.sha256)


def _identity(key: bytes, name: str, window: int, method: str, signed_actor: bytes) -> bytes:
    said = f"{name}:{window}"
    bound = f"{said}:{method}:{hashlib.sha256(signed_actor).hexdigest()}"
    return f"{said}:{hmac.digest(key, bound.encode(), hashlib.sha256).hex()}".encode()
