"""Docker's Engine API on a Unix socket, as far as one container needs it. Containers are ordinary processes."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer


class FakeEngine(ThreadingMixIn, UnixStreamServer):
    """Keeps what it was asked for in `created`; the containers that are left in `containers`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str) -> None:
        self.created: list[dict] = []
        self.containers: dict[str, dict] = {}
        self.missing_images: set[str] = set()
        self.oom = False
        self.garbage = b""
        self.running = threading.Event()
        super().__init__(path, _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/version"):
            self._json(200, {"ApiVersion": "1.47", "MinAPIVersion": "1.24", "Version": "27"})
        else:
            self._json(200, {"Id": self._id(), "State": {"OOMKilled": self.server.oom}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "/containers/create" in self.path:
            self._create(json.loads(body))
        elif self.path.split("?")[0].endswith("/attach"):
            self._attach()
        else:
            self.server.containers[self._id()]["started"].set()
            self._empty(204)

    def do_DELETE(self) -> None:
        container = self.server.containers.pop(self._id(), None)
        if container and container["process"]:
            container["process"].kill()
        self._empty(204)

    def _create(self, wanted: dict) -> None:
        if wanted["Image"] in self.server.missing_images:
            self._json(404, {"message": f"No such image: {wanted['Image']}"})
            return
        self.server.created.append(wanted)
        name = os.urandom(32).hex()
        self.server.containers[name] = {"wanted": wanted, "started": threading.Event(), "process": None}
        self._json(201, {"Id": name, "Warnings": []})

    def _attach(self) -> None:
        """Answer with the raw stream: standard input in, frames of both outputs out."""
        container = self.server.containers[self._id()]
        self.connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        self.close_connection = True
        container["started"].wait(20)
        if self.server.oom or self.server.garbage:
            self.connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                while self.connection.recv(1 << 16):
                    pass
            self.connection.settimeout(5)
            self._frame(1, self.server.garbage)
            return
        command = [sys.executable, *container["wanted"]["Cmd"][1:]]
        with (
            tempfile.TemporaryDirectory() as home,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=home,
                env={"HOME": home, "TMPDIR": home},
            ) as process,
        ):
            container["process"] = process
            self.server.running.set()
            feeder = threading.Thread(target=self._feed, args=(process,), daemon=True)
            errors = threading.Thread(target=self._forward, args=(2, process.stderr), daemon=True)
            feeder.start()
            errors.start()
            self._forward(1, process.stdout)
            errors.join()

    def _feed(self, process: subprocess.Popen) -> None:
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
        return re.search(r"/containers/([0-9a-f]{64})", self.path).group(1)

    def _json(self, status: int, value: dict) -> None:
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
