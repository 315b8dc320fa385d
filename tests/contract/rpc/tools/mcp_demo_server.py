"""An MCP server for tests: `mcp_demo_server.py stdio|sse|streamable_http`. Over HTTP it prints its port."""

import os
import socket
import sys

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("demo", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(name="weird.name/1")
def weird() -> str:
    """A name that providers refuse."""
    return "weird"


@server.tool()
def boom() -> str:
    """Fail."""
    raise ValueError("kaboom")


@server.tool()
def headers(context: Context) -> dict[str, str]:
    """Say what the request carried."""
    request = context.request_context.request
    return dict(request.headers) if request is not None else {}


@server.tool()
def environment() -> dict[str, str]:
    """Say what the process was given."""
    return dict(os.environ)


@server.tool()
def sleep(seconds: float) -> str:
    """Take a while."""
    import time

    time.sleep(seconds)
    return "slept"


@server.tool()
def change() -> str:
    """Offer other tools."""
    server.remove_tool("boom")
    server.remove_tool("add")

    def add(a: int, b: int, c: int) -> int:
        """Add three numbers."""
        return a + b + c

    def fresh() -> str:
        """New."""
        return "fresh"

    server.add_tool(add)
    server.add_tool(fresh)
    return "changed"


def main(transport: str) -> None:
    if transport == "stdio":
        server.run("stdio")
        return
    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1])
