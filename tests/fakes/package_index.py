"""A package index on loopback with wheels made here."""

import contextlib
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        """Say nothing."""


def add_wheel(root: Path, name: str, version: str, source: str) -> None:
    """Put a package of one module into the index."""
    info = f"{name}-{version}.dist-info"
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", source)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    _list(file)


def add_source(root: Path, name: str, version: str, built: Path) -> None:
    """Put a source distribution into the index; whoever builds it makes the file `built`, where the build runs."""
    top = f"{name}-{version}"
    backend = f"open({str(built)!r}, 'w').close()\nraise SystemExit('built')\n"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "planter"\nbackend-path = ["."]\n',
        "planter.py": backend,
        "setup.py": backend,
    }
    (root / name).mkdir(parents=True, exist_ok=True)
    file = root / name / f"{top}.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{top}/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    _list(file)


def _list(file: Path) -> None:
    """Put a file onto the page of its package."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    page = file.parent / "index.html"
    links = page.read_text() if page.exists() else "<!DOCTYPE html>\n"
    page.write_text(f'{links}<a href="{file.name}#sha256={digest}">{file.name}</a>\n')


@contextlib.contextmanager
def serving(root: Path) -> Iterator[str]:
    """Serve the index; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
