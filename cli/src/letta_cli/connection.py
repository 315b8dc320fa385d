"""How the command reaches a server: one channel, the caller's credential, errors with their reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import grpc
import typer

from letta_common.errors import ServiceUnavailable
from letta_common.rpc_errors import from_rpc_error

DEFAULT_ADDRESS = "127.0.0.1:50051"
AddressOption = Annotated[
    str, typer.Option("--address", envvar="LETTA_AGENT_ADDRESS", help="gRPC address of the server.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def connected(address: str) -> Iterator[grpc.Channel]:
    """Yield a channel that carries LETTA_API_KEY. Raises the AppError that a failed call stands for."""
    channel = grpc.intercept_channel(grpc.insecure_channel(address), _Credential(os.environ.get("LETTA_API_KEY", "")))
    try:
        yield channel
    except grpc.RpcError as error:
        failed: Any = error  # every RpcError of a call is a grpc.Call too
        if failed.code() is grpc.StatusCode.UNAVAILABLE and "connect" in failed.details():
            raise ServiceUnavailable(
                f"no server answers at {address}; start one with `letta server --dev`, or say where with --address"
            ) from None
        raise from_rpc_error(failed) from None
    finally:
        channel.close()


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
