"""Packages of tools: installed from a local index, once, from wheels alone, read-only, imported inside of calls."""

import base64
import hashlib
import json
import os
import shutil
import tempfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from letta_common.errors import InvalidArgument, ServiceUnavailable
from letta_sandbox.calls import CallEnding, Env, EnvSpec, SandboxCall
from letta_sandbox.local import installer
from letta_sandbox.local.provider import LocalProvider


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


def wheel(index: Path, name: str, version: str, modules: dict[str, str], requires: tuple[str, ...] = ()) -> None:
    """Put a wheel into the index."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {r}\n" for r in requires
    )
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**modules, f"{info}/METADATA": metadata, f"{info}/WHEEL": tags}
    rows = []
    directory = index / name
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(text)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    write_page(directory)


def write_page(directory: Path) -> None:
    links = "".join(
        f'<a href="{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}">{file.name}</a>\n'
        for file in directory.iterdir()
        if file.suffix in {".whl", ".gz"}
    )
    (directory / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The address of a package index on loopback."""
    root = tmp_path_factory.mktemp("index")
    wheel(
        root,
        "greeter",
        "1.0",
        {"greeter/__init__.py": "import helper\ndef greet(n): return helper.text + n\n"},
        ("helper",),
    )
    wheel(root, "helper", "2.0", {"helper.py": "text = 'hello '\n", "evil.pth": "import os; os._exit(9)\n"})
    wheel(root, "planter", "1.0", {"planter.py": "import os\nos.system('touch /var/tmp/planted-by-import')\nok = 1\n"})
    (root / "source").mkdir()
    (root / "source" / "source-1.0.tar.gz").write_bytes(b"not even an archive")
    write_page(root / "source")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
async def packages(provider, index):
    """A provider like the one of the tier, which installs packages."""
    directory = tempfile.mkdtemp(dir="/var/tmp")
    os.chmod(directory, 0o755)  # noqa: PTH101 - no blocking to speak of
    options = replace(provider._options, package_directory=directory, package_index=index)
    installing = LocalProvider(options)
    yield installing
    await installing.close()
    shutil.rmtree(directory)


GREET = "def f(name):\n    import greeter\n    return greeter.greet(name)"


async def test_packages_are_installed_with_what_they_need_and_imported(packages):
    env = await packages.prepare(EnvSpec(("greeter",), "org-1"))
    result = await packages.run(SandboxCall(GREET, "f", '{"name": "Ann"}'), env)

    assert (result.status, result.result) == (CallEnding.SUCCESS, '"hello Ann"'), result
    assert env.organization_id == "org-1"


async def test_calls_without_the_environment_do_not_see_its_packages(packages):
    await packages.prepare(EnvSpec(("greeter",)))

    assert (await packages.run(SandboxCall(GREET, "f", '{"name": "Ann"}'), Env())).failure.kind == "ModuleNotFoundError"


async def test_the_same_requirements_are_installed_once(packages, monkeypatch):
    first = await packages.prepare(EnvSpec(("greeter", "helper>=1"), "org-1"))
    monkeypatch.setattr(packages._installer, "_uv", None)

    second = await packages.prepare(EnvSpec((" helper>=1", "greeter", "greeter"), "org-2"))
    assert (first.key, first.path) == (second.key, second.path)


async def test_an_index_that_is_too_slow_is_called_so(packages, monkeypatch, tmp_path):
    slow = tmp_path / "uv"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setattr(installer, "_find_uv", lambda: str(slow))
    monkeypatch.setattr(installer, "_TIMEOUT", 0.01)

    with pytest.raises(ServiceUnavailable, match="not be fetched within"):
        await packages.prepare(EnvSpec(("greeter",)))


async def test_packages_cannot_be_changed_by_a_call(packages):
    env = await packages.prepare(EnvSpec(("greeter",)))
    source = "import greeter, os\ndef f():\n open(greeter.__file__, 'a').write('x')"
    assert (await packages.run(SandboxCall(source, "f"), env)).status is CallEnding.DENIED

    assert (await packages.run(SandboxCall(GREET, "f", '{"name": "Bob"}'), env)).result == '"hello Bob"'


async def test_what_a_package_does_at_import_it_does_isolated(packages):
    env = await packages.prepare(EnvSpec(("planter",)))
    for _ in range(3):
        result = await packages.run(SandboxCall("import planter\ndef f(): return planter.ok", "f"), env)
        assert (result.status, result.result) == (CallEnding.SUCCESS, "1")

    assert not os.path.exists("/var/tmp/planted-by-import")  # noqa: ASYNC240, PTH110


async def test_the_lock_has_hashes(packages):
    await packages.prepare(EnvSpec(("greeter",)))
    root = Path(packages._options.package_directory)
    (lock,) = [file.read_text() for file in (root / "locks").iterdir()]

    assert (
        *[line.split()[0] for line in lock.splitlines() if "==" in line],
        lock.count("--hash=sha256:"),
    ) == ("greeter==1.0", "helper==2.0", 2)


REFUSED = {
    "source distribution": "source",
    "no such package": "does-not-exist",
    "no such version": "greeter>=7",
    "a URL": "x @ https://example.com/x.whl",
    "a path": "./x",
    "an option": "--index-url=http://example.com",
    "a file of options": "-r /etc/passwd",
    "two lines": "greeter\n--index-url=http://example.com",
    "empty": "",
    "an option in a marker": "greeter; os_name == 'posix'\n--no-binary=greeter",
    "a command": "greeter; touch /tmp/x $(id)`id`",
}


@pytest.mark.parametrize("name", list(REFUSED))
async def test_what_cannot_be_installed_is_refused(packages, name):
    with pytest.raises(InvalidArgument):
        await packages.prepare(EnvSpec((REFUSED[name],)))


async def test_an_index_that_does_not_answer_is_unavailable(packages):
    packages._installer._source = replace(packages._installer._source, index_url="http://127.0.0.1:9")

    with pytest.raises(ServiceUnavailable):
        await packages.prepare(EnvSpec(("greeter",)))


async def test_without_a_directory_nothing_is_installed(provider):
    with pytest.raises(InvalidArgument, match="tools_package_directory"):
        await provider.prepare(EnvSpec(("greeter",)))


async def test_servers_of_environments_end_when_others_are_used(packages):
    packages._fleet._most = 1
    for wanted in ("helper", "greeter", "helper"):
        env = await packages.prepare(EnvSpec((wanted,)))
        result = await packages.run(SandboxCall("import helper\ndef f(): return helper.text", "f"), env)
        assert json.loads(result.result) == "hello "

    assert packages._fleet.count == 1
