"""An MCP server that misbehaves: `liar.py stdio|sse|streamable_http BEHAVIOUR`. Over HTTP it prints its port.

It uses nothing but the standard library, so that it can break any rule.
"""

import asyncio
import json
import os
import sys

OBJECT = {"type": "object", "properties": {}}
RECURSIVE = {"type": "object", "properties": {"node": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"$ref": "#/$defs/n"}}}
DEEP: dict = {"type": "object"}
for _ in range(60):
    DEEP = {"type": "object", "properties": {"x": DEEP}}
SCHEMAS = {
    "no array": {"type": "object", "properties": {"a": {"type": "array", "items": 5}}},
    "no object": {"type": "object", "properties": {"a": {"properties": 5}}},
    "enormous": {"type": "object", "description": "x" * 100_000},
    "recursive": RECURSIVE,
    "deep": DEEP,
    "same/name": OBJECT,
    "same name": OBJECT,
    "same.name": OBJECT,
    "näme ✓": OBJECT,
    "1" * 200: OBJECT,
    "good": OBJECT,
}


ODD = [
    {"name": "good", "inputSchema": OBJECT},
    {
        "name": "root reference",
        "inputSchema": {
            "$ref": "#/$defs/R",
            "$defs": {"R": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        },
    },
    {"name": "no type", "inputSchema": {"properties": {"a": {"type": "string"}}}},
    {"name": "no schema"},
    {"name": "null schema", "inputSchema": None},
    {"name": "text schema", "inputSchema": "object"},
    {"name": "array", "inputSchema": {"type": "array", "items": {}}},
    {"name": "text property", "inputSchema": {"type": "object", "properties": {"a": "string"}}},
    {"name": "required", "inputSchema": {"type": "object", "properties": {"a": {}}, "required": True}},
    {"name": "lost reference", "inputSchema": {"$ref": "#/$defs/None"}},
    {"name": "any output", "inputSchema": OBJECT, "outputSchema": {"anyOf": [{"type": "object"}]}},
    {"name": "array output", "inputSchema": OBJECT, "outputSchema": {"type": "array", "items": {}}},
    {"name": "hints", "inputSchema": OBJECT, "annotations": {"readOnlyHint": "yes", "title": 5}},
    {
        "name": "words",
        "inputSchema": OBJECT,
        "description": ["a"],
        "title": {},
        "icons": 3,
        "_meta": [],
        "execution": 1,
    },
    {"name": 7, "inputSchema": OBJECT},
    {"inputSchema": OBJECT},
    "a text",
    None,
]


class Server:
    """Answers messages; `None` is no answer at all."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.tools = {"pid": OBJECT, "same": OBJECT}
        if behaviour == "schemas":
            self.tools = SCHEMAS
        self.calls = 0

    def answer(self, message: dict) -> list[str]:
        """Return the lines that answer a message."""
        method = message.get("method")
        if "id" not in message or f"hang {method}" == self.behaviour:
            return []
        if self.behaviour == f"garbage {method}":
            return ["garbage", '{"jsonrpc": "2.0"}', "[" * 1000, '{"jsonrpc": "2.0", "id": 77, "result": {}}'] * 50
        if self.behaviour == f"crash {method}" or (self.behaviour == "crash once" and self._first_call(method)):
            os._exit(3)
        return [*self._before(method), json.dumps({"jsonrpc": "2.0", "id": message["id"], **self._result(method)})]

    def _first_call(self, method: str | None) -> bool:
        self.calls += method == "tools/call"
        return method == "tools/call" and self.calls == 2

    def _before(self, method: str | None) -> list[str]:
        if method != "tools/call" or self.behaviour != "changes":
            return []
        self.tools = {"other": OBJECT}
        return [json.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})] * 20

    def _result(self, method: str | None) -> dict:
        if method == "initialize":
            capabilities = {"tools": {"listChanged": True}}
            info = {"name": "liar", "version": "1"}
            return {"result": {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}}
        if method == "tools/list" and self.behaviour == "odd":
            return {"result": {"tools": ODD, "nextCursor": None}}
        if method == "tools/list":
            return {"result": {"tools": [{"name": name, "inputSchema": tool} for name, tool in self.tools.items()]}}
        if method == "tools/call":
            return {"result": {"content": [{"type": "text", "text": str(os.getpid())}]}}
        return {"error": {"code": -32601, "message": "no"}}


def serve_stdio(server: Server) -> None:
    for line in sys.stdin:
        for answer in server.answer(json.loads(line)):
            sys.stdout.write(answer + "\n")
        sys.stdout.flush()


class Http:
    """Streamable HTTP and the older event stream, one request a connection."""

    def __init__(self, server: Server, transport: str) -> None:
        self.server = server
        self.transport = transport
        self.events: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0]) if "content-length" in head else 0
        body = json.loads(await reader.readexactly(length)) if length else {}
        if head.startswith("get"):
            await self._open(writer)
        elif self.transport == "sse":
            writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await self._finish(writer)
            for line in self.server.answer(body):
                assert self.events is not None
                self.events.write(f"event: message\ndata: {line}\n\n".encode())
        else:
            await self._answer(body, writer)

    async def _open(self, writer: asyncio.StreamWriter) -> None:
        if self.transport != "sse":
            writer.write(b"HTTP/1.1 405 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await self._finish(writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(b"event: endpoint\ndata: /messages\n\n")
        self.events = writer

    async def _answer(self, body: dict, writer: asyncio.StreamWriter) -> None:
        if "id" not in body:
            writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await self._finish(writer)
            return
        lines = self.server.answer(body)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for line in lines:
            writer.write(f"event: message\ndata: {line}\n\n".encode())
        if lines:
            await self._finish(writer)

    async def _finish(self, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        writer.close()


async def serve_http(server: Server, transport: str) -> None:
    listening = await asyncio.start_server(Http(server, transport).serve, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        serve_stdio(Server(sys.argv[2]))
    else:
        asyncio.run(serve_http(Server(sys.argv[2]), sys.argv[1]))
