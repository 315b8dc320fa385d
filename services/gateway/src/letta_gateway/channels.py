"""Channels to the services, without the identity of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio

from letta_common.client import channel_options

if TYPE_CHECKING:
    from letta_gateway.settings import GatewaySettings

_OPTIONS = [
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
]


def connect(target: str, settings: GatewaySettings) -> grpc.aio.Channel:
    """Return a channel to a service, made once a process."""
    options = [*channel_options(settings.max_message_bytes), *_OPTIONS]
    if settings.tls_ca is None:
        return grpc.aio.insecure_channel(target, options)
    credentials = grpc.ssl_channel_credentials(
        settings.tls_ca.read_bytes(),
        settings.tls_key.read_bytes() if settings.tls_key else None,
        settings.tls_certificate.read_bytes() if settings.tls_certificate else None,
    )
    return grpc.aio.secure_channel(target, credentials, options)
