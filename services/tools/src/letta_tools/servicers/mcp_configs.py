"""Configurations of MCP servers between messages and values. Secrets are never packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from letta.tools.v1 import mcp_server_pb2
from letta.tools.v1 import mcp_server_service_pb2 as pb
from letta_tools.domain.mcp.servers import MASK, SSE, STDIO, STREAMABLE_HTTP, MCPConnection


def read_config(config: mcp_server_pb2.MCPServerConfig) -> MCPConnection:
    """Return what a configuration says, secrets included."""
    kind = config.WhichOneof("transport") or STREAMABLE_HTTP
    if kind == STDIO:
        return _read_program(config.stdio)
    return _read_remote(kind, config.sse if kind == SSE else config.streamable_http)


def read_change(kind: str, request: pb.ChangeMCPServerRequest) -> MCPConnection:
    """Return what a change of a server of this type says."""
    return _read_program(request.stdio_config) if request.HasField("stdio_config") else _read_remote(kind, request)


def _read_remote(
    kind: str, given: mcp_server_pb2.SseMCPConfig | mcp_server_pb2.StreamableHttpMCPConfig | pb.ChangeMCPServerRequest
) -> MCPConnection:
    return MCPConnection(
        kind,
        server_url=given.server_url if given.HasField("server_url") else None,
        auth_header=given.auth_header if given.HasField("auth_header") else None,
        auth_token=given.auth_token if given.HasField("auth_token") else None,
        custom_headers=dict(given.custom_headers),
    )


def _read_program(stdio: mcp_server_pb2.StdioMCPConfig) -> MCPConnection:
    command = stdio.command if stdio.HasField("command") else None
    return MCPConnection(STDIO, command=command, args=tuple(stdio.args), env=dict(stdio.env))


def pack_config(connection: MCPConnection, config: mcp_server_pb2.MCPServerConfig) -> None:
    """Write a connection into a configuration, with its secrets masked."""
    if connection.server_type == STDIO:
        env = _masked(connection.env)
        packed = mcp_server_pb2.StdioMCPConfig(command=connection.command, args=connection.args, env=env)
        config.stdio.CopyFrom(packed)
        return
    values: dict[str, Any] = {
        "server_url": connection.server_url,
        "auth_header": connection.auth_header,
        "auth_token": MASK if connection.auth_token else None,
        "custom_headers": _masked(connection.custom_headers),
    }
    if connection.server_type == SSE:
        config.sse.CopyFrom(mcp_server_pb2.SseMCPConfig(**values))
    else:
        config.streamable_http.CopyFrom(mcp_server_pb2.StreamableHttpMCPConfig(**values))


def _masked(values: Mapping[str, str]) -> dict[str, str]:
    return dict.fromkeys(values, MASK)
