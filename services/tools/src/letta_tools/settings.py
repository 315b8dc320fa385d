"""Settings of the tools service."""

from __future__ import annotations

from typing import ClassVar

from letta_common.settings import Settings
from pydantic import Field


class ToolsSettings(Settings):
    """Settings of tools: LETTA_TOOLS_X wins over LETTA_X."""

    service: ClassVar[str] = "tools"

    bind: str = Field(default="127.0.0.1:50053", description="Address and port of the gRPC server.")
    pool_size: int = Field(default=10, ge=1, description="Most database connections of this process.")
