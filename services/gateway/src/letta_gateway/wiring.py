"""Builds the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from letta.common.v1 import error_reason_pb2
from letta_gateway.app import App, AppParts
from letta_gateway.authenticator import DevCredentials, PassCredentials
from letta_gateway.browsers import DevelopmentGate, OpenGate
from letta_gateway.cors import Cors
from letta_gateway.readiness import Readiness
from letta_gateway.settings import GatewaySettings
from letta_gateway.v1.operations import absent
from letta_rpc.service import Deps
from letta_transcode import Pace, RequestLimits, Transcoder


@dataclass(frozen=True, slots=True)
class Gateway:
    """A built gateway: the ASGI application, and what begins and ends its watch of the services."""

    app: App
    start: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]
    ready: Callable[[], Awaitable[None]]


async def build(settings: GatewaySettings, deps: Deps) -> Gateway:
    """Build the gateway in front of the services whose channels are given.

    The channels must carry no service identity: calls of outsiders would reach what is internal.
    """
    channels = {name: deps.channels[name] for name in settings.peers if name in deps.channels}
    transcoder = Transcoder(
        channels,
        reasons=error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"],
        limits=RequestLimits(
            body=settings.max_body_bytes,
            form=settings.max_form_bytes,
            call=settings.call_seconds,
            stream=settings.stream_seconds,
        ),
        pace=Pace(refresh=settings.refresh_seconds),
        absent=absent(),
    )
    cors, dev = Cors(settings.allowed_origins), settings.dev_mode
    parts = AppParts(
        transcoder,
        DevCredentials() if dev else PassCredentials(),
        cors,
        Readiness(channels),
        DevelopmentGate(cors, settings.allowed_hosts) if dev else OpenGate(),
        settings.docs,
    )
    app = App(parts)
    return Gateway(app, transcoder.start, transcoder.close, transcoder.peers.ready)
