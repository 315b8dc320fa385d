"""Runs the application under uvicorn inside a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from letta_gateway.bounded_http import Bounds, bounded

if TYPE_CHECKING:
    from letta_gateway.settings import GatewaySettings


class HttpServer:
    """An HTTP server that leaves signals to the process it runs in."""

    def __init__(self, app: Any, settings: GatewaySettings) -> None:
        host, _, port = settings.bind.rpartition(":")
        config = uvicorn.Config(
            app,
            host=host.strip("[]"),
            port=int(port),
            http=bounded(_bounds(settings)),
            # Signals, lifespan and logs belong to the process; proxies' headers would let a client choose its address.
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,  # clients and proxies keep theirs shorter, so that none meets a closed socket
            timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        self._shared = settings.share_ports
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, chosen by the system when 0 was asked for."""
        listening = self._server.servers[0].sockets[0]
        return int(listening.getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        config = self._server.config
        try:
            listening = socket.create_server(
                (config.host, config.port),
                family=socket.AF_INET6 if ":" in config.host else socket.AF_INET,
                backlog=2048,
                reuse_port=self._shared,
            )
        except OSError as error:
            raise OSError(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from error
        self._task = asyncio.create_task(self._server.serve([listening]))
        while not self._server.started:
            if self._task.done():
                await self._task
                return
            # uvicorn has no event for its start, only this flag.
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop listening; requests in flight may end within the drain time."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def _bounds(settings: GatewaySettings) -> Bounds:
    return Bounds(
        header_bytes=settings.max_header_bytes,
        headers=settings.max_headers,
        header_seconds=settings.header_seconds,
        body_bytes=8 * max(settings.max_body_bytes, settings.max_form_bytes),  # what is too large is read to be told so
        body_seconds=settings.body_seconds,
        connections=settings.max_connections,
    )


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
