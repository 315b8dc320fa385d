"""How the command reaches a server: one channel, TLS, the caller's credential, errors with their reason."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from letta_common.errors import AppError, DatabaseUnavailable, InvalidArgument, ServiceUnavailable, Unauthenticated
from letta_rpc.rpc_errors import DETAILS_KEY, from_rpc_error

CALL_SECONDS = 30.0
DEFAULT_ADDRESS = "127.0.0.1:50051"
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address", envvar="LETTA_AGENT_ADDRESS", help="gRPC address of the server; https:// or grpcs:// for TLS."
    ),
]
CaOption = Annotated[
    Path | None, typer.Option("--tls-ca", envvar="LETTA_TLS_CA", help="PEM file of the server's authority; TLS.")
]
CertificateOption = Annotated[
    Path | None,
    typer.Option("--tls-certificate", envvar="LETTA_TLS_CERTIFICATE", help="PEM file of one's own certificate."),
]
KeyOption = Annotated[
    Path | None, typer.Option("--tls-key", envvar="LETTA_TLS_KEY", help="PEM file of the certificate's private key.")
]
# An address of version 6 stands in brackets, or its last part would be taken for the port.
_ADDRESS = re.compile(r"(?:(?P<scheme>grpcs?|https?)://)?(?P<host>\[[^\]]+\]|[^:/\[\]\s]+)(?::(?P<port>\d{1,5}))?/?")
# Without a scheme it is the port that the server itself takes.
_PORTS = {"https": 443, "http": 80}
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),  # gRPC's 4 MiB are too few for a large agent
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # a server that is back is used at once
]


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server as the caller names it."""

    address: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def open(self) -> grpc.Channel:
        """Return a channel that carries LETTA_API_KEY. Raises InvalidArgument for what is no address, and OSError."""
        if self.address.startswith("unix:"):
            channel = grpc.insecure_channel(self.address, _OPTIONS)
        else:
            channel = self._over_network()
        return grpc.intercept_channel(channel, _Credential(os.environ.get("LETTA_API_KEY", "").strip()))

    def _over_network(self) -> grpc.Channel:
        parts = _ADDRESS.fullmatch(self.address.strip())
        if parts is None:
            raise InvalidArgument(
                f"`{self.address}` is no address of a server; it looks like host:50051, or https://host:443 with TLS"
            )
        target = f"{parts['host']}:{parts['port'] or _PORTS.get(parts['scheme'] or '', 50051)}"
        if parts["scheme"] in {"grpcs", "https"} or (parts["scheme"] is None and self.ca is not None):
            return grpc.secure_channel(target, self._credentials(), _OPTIONS)
        return grpc.insecure_channel(target, _OPTIONS)

    def _credentials(self) -> grpc.ChannelCredentials:
        ca, key, certificate = (file.read_bytes() if file else None for file in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


@contextmanager
def connected(target: ServerAddress | str) -> Iterator[grpc.Channel]:
    """Yield a channel. Raises the AppError that a failed call stands for."""
    to = ServerAddress(target) if isinstance(target, str) else target
    channel = to.open()
    try:
        with explained_failures(to.address):
            yield channel
    finally:
        channel.close()


@contextmanager
def explained_failures(address: str) -> Iterator[None]:
    """Turn failed calls into the AppError they stand for; one that never reached a server says what to do."""
    try:
        yield
    except grpc.RpcError as error:
        raise _failure(error, address) from None


def _failure(error: Any, address: str) -> AppError:
    """Tell a server that is not there from one whose database is not: the latter answers, with a reason."""
    answered = any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ())
    if error.code() is grpc.StatusCode.UNAVAILABLE and not answered:
        return ServiceUnavailable(_unreached(error.details() or "", address))
    failure = from_rpc_error(error)
    if isinstance(failure, DatabaseUnavailable):
        return DatabaseUnavailable(f"the server at {address} answers, but its database does not: {failure.message}")
    if isinstance(failure, Unauthenticated) and not os.environ.get("LETTA_API_KEY"):
        return Unauthenticated(f"{failure.message}; set LETTA_API_KEY to a key of the server at {address}")
    return failure


def _unreached(details: str, address: str) -> str:
    # gRPC has one status for all that goes wrong before an answer; only its words tell the cases apart.
    if "handshake" in details.lower() or "CERTIFICATE_VERIFY_FAILED" in details:
        return (
            f"no TLS with the server at {address}: it speaks none, or its certificate is not of an authority known "
            "here (--tls-ca names one) or for another name"
        )
    if "Socket closed" in details or "reset" in details or "HTTP2" in details.upper().replace("/", ""):
        return (
            f"the server at {address} ended the connection; one with TLS is reached as https://{address}, and gRPC has "
            "another port than HTTP"
        )
    return f"no server answers at {address}; start one with `letta server --dev`, or say where with --address"


def remote(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes a channel the options that say to which server, and the channel.

    A command with a parameter `address` gets the address too.
    """
    taken = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    own = [one for one in taken if one.name != "address"]
    given: dict[str, Any] = {
        "address": (AddressOption, DEFAULT_ADDRESS),
        "tls_ca": (CaOption, None),
        "tls_certificate": (CertificateOption, None),
        "tls_key": (KeyOption, None),
    }
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, kind, default=given[name][1], annotation=given[name][0]) for name in given]

    @functools.wraps(command)
    def called(**values: Any) -> None:
        target = ServerAddress(*(values.pop(name) for name in given))
        with connected(target) as channel:
            command(channel, **values, **({"address": target.address} if len(own) < len(taken) else {}))

    shown: Any = called
    del shown.__wrapped__
    shown.__signature__ = inspect.Signature([*(one.replace(kind=kind) for one in own), *more])
    shown.__annotations__ = {one.name: one.annotation for one in (*own, *more)}
    return called


class _Credential(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the credential to every call."""

    def __init__(self, key: str) -> None:
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Add it to a unary call."""
        return continuation(self._with(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        """Add it to a streaming call."""
        return continuation(self._with(details), request)

    def _with(self, details: Any) -> Any:
        metadata = (*(details.metadata or ()), *self._metadata)
        return details._replace(metadata=metadata)
