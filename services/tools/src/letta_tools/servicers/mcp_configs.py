"""What requests say of MCP servers, and how answers show them."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from letta.tools.v1.mcp_server_pb2 import MCPServer, MCPServerSettings, StreamableHttpMCPConfig
from letta_common.errors import ValidationFailed
from letta_rpc.masks import changed_paths, copy_paths
from letta_tools.domain.mcp.connections import STDIO, STREAMABLE_HTTP

_REMOTE = tuple(each.name for each in StreamableHttpMCPConfig.DESCRIPTOR.fields)
_LACKING = {"server_name": "must be at least 1 characters", "config": "value is required"}


def require_whole(server: MCPServer) -> None:
    """Refuse a server without a name, or without a word on how it is reached. Raises ValidationFailed."""
    told = {field.name for field, _ in server.ListFields()}
    lacking = {f"mcp_server.{name}": why for name, why in _LACKING.items() if name not in told}
    if lacking:
        raise ValidationFailed("; ".join(f"{path}: {why}" for path, why in lacking.items()), **lacking)


def read_change(given: MCPServer, mask: FieldMask) -> tuple[MCPServer, tuple[str, ...]]:
    """Return what an update says, and the paths that it changes. Raises InvalidArgument."""
    paths = changed_paths(given, mask)
    if not mask.paths:
        return given, paths
    named = MCPServer()
    copy_paths(given, named, paths)
    return named, paths


def read_settings(kind: str, given: MCPServerSettings, mask: FieldMask) -> tuple[MCPServer, tuple[str, ...]]:
    """Return the same of settings, for a server of this type. Raises InvalidArgument."""
    paths = changed_paths(given, mask)
    named, change = MCPServerSettings(), MCPServer()
    copy_paths(given, named, paths)
    copy_paths(named, change, ["server_name"])
    remote = STREAMABLE_HTTP if kind == STDIO else kind
    if named.HasField("stdio_config"):
        change.config.stdio.CopyFrom(named.stdio_config)
    elif kind != STDIO:
        copy_paths(named, getattr(change.config, kind), _REMOTE)
    return change, tuple(_path(remote, each) for each in paths) if mask.paths else changed_paths(change, mask)


def _path(remote: str, path: str) -> str:
    """Return where a server has what a path of its settings names."""
    name, dot, rest = path.partition(".")
    if name == "stdio_config":
        return f"config.stdio{dot}{rest}"
    return f"config.{remote}.{path}" if name in _REMOTE else path
