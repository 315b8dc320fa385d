"""How an MCP server is reached: addresses, programs and the secrets that go with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from letta.tools.v1.mcp_server_pb2 import MCPServerConfig, SseMCPConfig, StdioMCPConfig, StreamableHttpMCPConfig
from letta_common.egress import origin_of
from letta_common.errors import InvalidArgument, SecretRequired

STDIO, SSE, STREAMABLE_HTTP = "stdio", "sse", "streamable_http"
MASK = "********"
# What RFC 9110 calls a token.
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# A line break would begin another header.
_HEADER_VALUE = re.compile(r"[\t -~]*")
_TEMPLATE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*(?:\|([^}]*))?\}\}")


@dataclass(frozen=True, slots=True)
class MCPConnection:
    """How a server is reached, by whom, secrets included. `server_id` is empty for a server that is not kept."""

    server_type: str
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    server_url: str | None = None
    auth_header: str | None = None
    auth_token: str | None = None
    custom_headers: Mapping[str, str] = field(default_factory=dict)
    organization_id: str = ""
    server_id: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers of every request."""
        headers = dict(self.custom_headers)
        if self.auth_token:
            headers[self.auth_header or "Authorization"] = self.auth_token
        return headers

    def filled(self, variables: Mapping[str, str]) -> MCPConnection:
        """Return the connection with `{{ NAME | default }}` replaced."""
        return replace(
            self,
            # Neither address nor program: a variable must not choose where the secrets go.
            auth_token=_fill(self.auth_token, variables) if self.auth_token else self.auth_token,
            custom_headers={name: _fill(value, variables) for name, value in self.custom_headers.items()},
            env={name: _fill(value, variables) for name, value in self.env.items()},
        )

    def changed(self, config: MCPServerConfig, paths: Iterable[str]) -> MCPConnection:
        """Return the connection after a change of what the paths of a server name; masked values stay as they were.

        Raises:
            InvalidArgument: the change is for another type of server.
            SecretRequired: a secret that is kept would go elsewhere than it was given for.
        """
        given = connection_of(config)
        told = {name: getattr(given, name) for name in _named(self.server_type, config, paths)}
        if told.get("auth_token") == MASK:
            del told["auth_token"]
        kept = self._kept(told)
        for name in told.keys() & {"env", "custom_headers"}:
            told[name] = _unmasked(getattr(self, name), told[name])
        for name in told.keys() & {"command", "server_url"}:
            # No server is without one.
            told[name] = told[name] or getattr(self, name)
        after = replace(self, **told)
        if kept and self._place() != after._place():
            raise SecretRequired(
                f"the server would be another than its secrets were given for: send {', '.join(kept)} with the change, "
                "or empty values to remove them",
                field=f"config.{kept[0]}",
            )
        return after

    def _place(self) -> tuple[str, ...]:
        """Return where the secrets go: the origin of a server, or the program that is started."""
        return (origin_of(self.server_url or ""),) if self.server_type != STDIO else (self.command or "", *self.args)

    def _kept(self, told: Mapping[str, Any]) -> list[str]:
        """Return the names of the secrets that a change does not give anew."""
        tokens = ["auth_token"] if self.auth_token and "auth_token" not in told else []
        headers = _untouched("custom_headers", self.custom_headers, told.get("custom_headers"))
        return [*tokens, *headers, *_untouched("env", self.env, told.get("env"))]


def connection_of(config: MCPServerConfig) -> MCPConnection:
    """Return what a configuration says, secrets included."""
    kind = config.WhichOneof("transport") or STREAMABLE_HTTP
    given = getattr(config, kind)
    values = {
        each.name: getattr(given, each.name)
        for each in given.DESCRIPTOR.fields
        if not each.has_presence or given.HasField(each.name)
    }
    copied = {name: _plain(value) for name, value in values.items()}
    return MCPConnection(kind, **copied)


def config_of(connection: MCPConnection) -> MCPServerConfig:
    """Return a connection as answers show it, its secrets masked."""
    if connection.server_type == STDIO:
        env = dict.fromkeys(connection.env, MASK)
        return MCPServerConfig(stdio=StdioMCPConfig(command=connection.command, args=connection.args, env=env))
    values: dict[str, Any] = {
        "server_url": connection.server_url,
        "auth_header": connection.auth_header,
        "auth_token": MASK if connection.auth_token else None,
        "custom_headers": dict.fromkeys(connection.custom_headers, MASK),
    }
    if connection.server_type == SSE:
        return MCPServerConfig(sse=SseMCPConfig(**values))
    return MCPServerConfig(streamable_http=StreamableHttpMCPConfig(**values))


def _named(kind: str, config: MCPServerConfig, paths: Iterable[str]) -> frozenset[str]:
    """Return the parts of a connection that paths name. Raises InvalidArgument for another type of server."""
    named: set[str] = set()
    kinds = {config.WhichOneof("transport") or kind}
    for path in paths:
        field_name, *within = path.split(".")
        if field_name != "config":
            continue
        kinds.update(within[:1])
        transport = getattr(config, within[0] if within else kind)
        named.update(within[1:] or (each.name for each in transport.DESCRIPTOR.fields))
    if kinds != {kind}:
        raise InvalidArgument(f"the server is of type {kind}, which stays", field="config")
    return frozenset(named)


def _plain(value: Any) -> Any:
    """Return a value of a message as one that nobody can change."""
    if isinstance(value, str):
        return value
    return dict(value) if isinstance(value, Mapping) else tuple(value)


def _fill(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        fallback = match[2].strip() if match[2] is not None else match[0]
        return variables.get(match[1], fallback)

    return _TEMPLATE.sub(value, text)


def _unmasked(before: Mapping[str, str], after: Mapping[str, str]) -> Mapping[str, str]:
    return {name: before.get(name, value) if value == MASK else value for name, value in after.items()}


def _untouched(name: str, before: Mapping[str, str], after: Mapping[str, str] | None) -> list[str]:
    """Return which secrets of a map stay as they are: all of them when it is not named, else those sent masked."""
    kept = before if after is None else [key for key, value in after.items() if value == MASK and key in before]
    return sorted(f"{name}.{key}" for key in kept if before[key])


def check_complete(connection: MCPConnection) -> None:
    """Refuse what cannot be a server. Raises InvalidArgument."""
    if connection.server_type == STDIO and not connection.command:
        raise InvalidArgument("a stdio server needs a command", field="config.command")
    if connection.server_type != STDIO and not connection.server_url:
        raise InvalidArgument(f"a {connection.server_type} server needs a server_url", field="config.server_url")
    _check_texts(connection)


def _check_texts(connection: MCPConnection) -> None:
    """Refuse what could be read as more than one argument, variable or header."""
    for text in (connection.command or "", *connection.args, *connection.env.values()):
        if "\0" in text:
            raise InvalidArgument("a program cannot be given NUL characters", field="config")
    for name in connection.env:
        if not name or not name.isprintable() or "=" in name:
            raise InvalidArgument(f"{name[:100]!r} is no name of an environment variable", field="config.env")
    for name, value in connection.headers().items():
        if not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            text = f"the header {name[:100]!r} cannot be sent; use letters, digits and signs of ASCII"
            raise InvalidArgument(text, field="config.custom_headers")
