"""Settings of the gateway."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from letta_common.process.settings import PEERS, Settings


class GatewaySettings(Settings):
    """Settings of the gateway. `LETTA_GATEWAY_X` is for it alone and wins over `LETTA_X`."""

    service: ClassVar[str] = "gateway"

    bind: str = Field(default="127.0.0.1:8283", description="Address and port of the HTTP server.")
    peers: tuple[str, ...] = Field(default=tuple(PEERS), description="Services whose methods are served over HTTP.")
    allowed_origins: tuple[str, ...] = Field(
        default=(
            "http://letta.localhost",
            "http://localhost:8283",
            "http://localhost:8083",
            "http://localhost:3000",
            "http://localhost:4200",
        ),
        description="Origins whose pages may call (CORS); `*` allows all, then without credentials.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Names by which a development server may be called, besides localhost and addresses of loopback.",
    )
    max_body_bytes: int = Field(default=8 << 20, gt=0, description="Largest JSON body accepted.")
    max_form_bytes: int = Field(
        default=51 << 20, gt=0, description="Largest uploaded form accepted; files of folders go on as they come."
    )
    max_header_bytes: int = Field(default=32 << 10, gt=0, description="Largest path and headers of a request together.")
    max_headers: int = Field(default=100, gt=0, description="Most headers of a request.")
    header_seconds: float = Field(default=10.0, gt=0, description="How long the headers of a request may take to come.")
    body_seconds: float = Field(
        default=20.0, gt=0, description="How long a body may stand still; it must come with 500 bytes a second, too."
    )
    max_connections: int = Field(
        default=2000, gt=0, description="Connections at once; the longest idle one makes room for another."
    )
    call_seconds: float = Field(default=600.0, gt=0, description="How long a call may take.")
    stream_seconds: float = Field(default=3600.0, gt=0, description="How long a stream may take.")
    refresh_seconds: float = Field(default=15.0, gt=0, description="How often services are asked for their contract.")
    docs: bool = Field(default=True, description="Serve `/openapi.json` and `/docs`.")
