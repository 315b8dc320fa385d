"""E2B's API and the daemon in its sandboxes on one port, as far as calls need them. Sandboxes are directories."""

import base64
import contextlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from tests.fakes.machine_rooms import Room


class FakeCloud(ThreadingHTTPServer):
    """Keeps what it was asked for in `created`; the sandboxes that are left in `sandboxes`.

    `faults` are statuses that the next requests to create are answered with.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, key: str) -> None:
        self.key = key
        self.created: list[dict] = []
        self.sandboxes: dict[str, dict] = {}
        self.faults: list[int] = []
        self.running = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def end(self, name: str) -> bool:
        sandbox = self.sandboxes.pop(name, None)
        if sandbox is not None:
            sandbox["room"].end()
        return sandbox is not None

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        for name in list(self.sandboxes):
            self.end(name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        path = urlsplit(self.path)
        if path.path in {"/sandboxes", "/v2/sandboxes"}:
            self._create(json.loads(body))
        elif path.path == "/files":
            self._write(parse_qs(path.query)["path"][0], body)
        elif path.path == "/process.Process/Start":
            self._start(json.loads(body[5:])["process"])
        else:
            self._json(404, {"code": 404, "message": self.path})

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        wanted = {unquote(name): unquote(value) for name, value in parse_qsl(query.get("metadata", [""])[0])}
        found = [
            _listed(name, sandbox["metadata"])
            for name, sandbox in list(self.server.sandboxes.items())
            if wanted.items() <= sandbox["metadata"].items()
        ]
        self._json(200, found)

    def do_DELETE(self) -> None:
        if not self.server.end(self.path.rsplit("/", 1)[1]):
            self._json(404, {"code": 404, "message": "the sandbox was not found"})
            return
        self.send_response(204)
        self.end_headers()

    def _create(self, wanted: dict) -> None:
        if self.headers.get("X-API-Key") != self.server.key:
            self._json(401, {"code": 401, "message": "the key is not valid"})
            return
        if self.server.faults:
            self._json(self.server.faults.pop(0), {"code": 0, "message": "the cloud has a fault"})
            return
        name = f"i{os.urandom(8).hex()}"
        self.server.created.append(wanted)
        self.server.sandboxes[name] = {"room": Room(wanted.get("envVars")), "metadata": wanted.get("metadata") or {}}
        self._json(
            201, {"templateID": wanted["templateID"], "sandboxID": name, "clientID": "c", "envdVersion": "0.6.2"}
        )

    def _room(self) -> Room | None:
        """Return the room of the sandbox that the request is for; there may be none anymore."""
        sandbox = self.server.sandboxes.get(self.headers["E2b-Sandbox-Id"])
        if sandbox is None:
            self._json(502, {"code": 502, "message": "The sandbox was not found"})
            return None
        return sandbox["room"]

    def _write(self, path: str, data: bytes) -> None:
        room = self._room()
        if room is not None:
            name = Path(path).name
            (room.place / name).write_bytes(data)
            self._json(200, [{"name": name, "type": "file", "path": path}])

    def _start(self, asked: dict) -> None:
        """Run the command; answer with a Connect stream of JSON messages."""
        room = self._room()
        if room is None:
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/connect+json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        arguments = [argument.replace("/tmp/", f"{room.place}/") for argument in asked["args"]]
        with room.run([asked["cmd"], *arguments[1:]]) as process:
            self.server.running.set()
            self._event({"start": {"pid": process.pid}})
            errors = threading.Thread(target=self._forward, args=("stderr", process.stderr), daemon=True)
            errors.start()
            self._forward("stdout", process.stdout)
            errors.join()
            code = process.wait()
        if room.ended:
            self.close_connection = True
            return
        self._event({"end": {"exitCode": code, "exited": True, "status": f"exit status {code}"}})
        self._message(2, {})
        with contextlib.suppress(OSError):
            self.wfile.write(b"0\r\n\r\n")

    def _forward(self, name: str, pipe) -> None:
        while piece := os.read(pipe.fileno(), 1 << 15):
            self._event({"data": {name: base64.b64encode(piece).decode()}})

    def _event(self, event: dict) -> None:
        self._message(0, {"event": event})

    def _message(self, flags: int, value: dict) -> None:
        data = json.dumps(value).encode()
        framed = bytes([flags]) + len(data).to_bytes(4, "big") + data
        with contextlib.suppress(OSError):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(framed), framed))

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, status: int, value) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _listed(name: str, metadata: dict) -> dict:
    return {
        "alias": "",
        "clientID": "c",
        "cpuCount": 1,
        "diskSizeMB": 512,
        "endAt": "2030-01-01T00:00:00Z",
        "envdVersion": "0.6.2",
        "memoryMB": 512,
        "metadata": metadata,
        "sandboxID": name,
        "startedAt": "2026-01-01T00:00:00Z",
        "state": "running",
        "templateID": "letta",
    }
