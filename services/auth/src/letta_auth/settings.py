"""Settings of the auth service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from letta_common.process.settings import Settings


class AuthSettings(Settings):
    """`LETTA_AUTH_X` wins over `LETTA_X`."""

    service: ClassVar[str] = "auth"

    bind: str = Field(default="127.0.0.1:50055", description="Address and port of the gRPC server.")
    pool_size: int = Field(default=5, gt=0, description="Most database connections at once.")
    signing_key_days: int = Field(default=90, gt=0, description="Days after which a new signing key is made.")
