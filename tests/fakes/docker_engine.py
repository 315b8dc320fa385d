"""Docker's Engine API on a Unix socket, as far as calls need it. Containers are directories."""

import contextlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from urllib.parse import parse_qs, urlsplit

from tests.fakes.machine_rooms import Room


class FakeEngine(ThreadingMixIn, UnixStreamServer):
    """Keeps what it was asked for in `created`; the containers that are left in `containers`.

    `faults` are statuses that the next requests to create are answered with.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: str) -> None:
        self.created: list[dict] = []
        self.containers: dict[str, dict] = {}
        self.missing_images: set[str] = set()
        self.faults: list[int] = []
        self.oom = False
        self.garbage = b""
        self.running = threading.Event()
        super().__init__(path, _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def end(self, name: str) -> bool:
        container = self.containers.pop(name, None)
        if container is not None:
            container["room"].end()
        return container is not None

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        for name in list(self.containers):
            self.end(name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        if path.path.endswith("/version"):
            self._json(200, {"ApiVersion": "1.47", "MinAPIVersion": "1.24", "Version": "27"})
        elif path.path.endswith("/containers/json"):
            (label,) = json.loads(parse_qs(path.query)["filters"][0])["label"]
            self._json(200, self._list(*label.split("=")))
        elif self._id() in self.server.containers:
            self._json(200, {"Id": self._id(), "State": {"OOMKilled": self.server.oom}})
        else:
            self._json(404, {"message": f"No such container: {self._id()}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        if path.endswith("/containers/create"):
            self._create(json.loads(body))
        elif path.endswith("/start") and "/exec/" in path:
            self._run()
        elif path.endswith("/exec"):
            self._prepare(json.loads(body))
        else:
            self.server.containers[self._id()]["started"] = True
            self._empty(204)

    def do_DELETE(self) -> None:
        if self.server.end(self._id()):
            self._empty(204)
        else:
            self._json(404, {"message": f"No such container: {self._id()}"})

    def _list(self, label: str, value: str) -> list[dict]:
        found = {name: item["wanted"].get("Labels") or {} for name, item in list(self.server.containers.items())}
        return [{"Id": name, "Labels": labels} for name, labels in found.items() if labels.get(label) == value]

    def _create(self, wanted: dict) -> None:
        if self.server.faults:
            self._json(self.server.faults.pop(0), {"message": "the engine has a fault"})
            return
        if wanted["Image"] in self.server.missing_images:
            self._json(404, {"message": f"No such image: {wanted['Image']}"})
            return
        self.server.created.append(wanted)
        name = os.urandom(32).hex()
        self.server.containers[name] = {"wanted": wanted, "room": Room(), "started": False, "commands": {}}
        self._json(201, {"Id": name, "Warnings": []})

    def _prepare(self, wanted: dict) -> None:
        container = self.server.containers.get(self._id())
        if container is None or not container["started"]:
            self._json(404, {"message": f"No such container: {self._id()}"})
            return
        name = os.urandom(32).hex()
        container["commands"][name] = wanted["Cmd"]
        self._json(201, {"Id": name})

    def _run(self) -> None:
        """Answer with the raw stream: standard input in, frames of both outputs out."""
        name = self._id()
        (container,) = [item for item in self.server.containers.values() if name in item["commands"]]
        self.connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        self.close_connection = True
        if self.server.oom or self.server.garbage:
            self.connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                while self.connection.recv(1 << 16):
                    pass
            self.connection.settimeout(5)
            self._frame(1, self.server.garbage)
            return
        with container["room"].run(container["commands"][name]) as process:
            self.server.running.set()
            feeder = threading.Thread(target=self._feed, args=(process,), daemon=True)
            errors = threading.Thread(target=self._forward, args=(2, process.stderr), daemon=True)
            feeder.start()
            errors.start()
            self._forward(1, process.stdout)
            errors.join()

    def _feed(self, process) -> None:
        try:
            while piece := self.connection.recv(1 << 16):
                process.stdin.write(piece)
                process.stdin.flush()
        except (OSError, ValueError):
            pass

    def _forward(self, stream: int, pipe) -> None:
        while piece := os.read(pipe.fileno(), 1 << 15):
            self._frame(stream, piece)

    def _frame(self, stream: int, piece: bytes) -> None:
        with contextlib.suppress(OSError):
            self.connection.sendall(bytes([stream, 0, 0, 0]) + len(piece).to_bytes(4, "big") + piece)

    def _id(self) -> str:
        return re.search(r"/(?:containers|exec)/([0-9a-f]{64})", self.path).group(1)

    def _json(self, status: int, value) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _empty(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def start_engine(directory: Path) -> FakeEngine:
    """Start an engine on a socket in this directory."""
    return FakeEngine(str(directory / "docker.sock"))
