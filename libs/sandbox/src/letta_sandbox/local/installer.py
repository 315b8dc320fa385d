"""Installs the packages that tools require: wheels alone, by hash, once per lock, without running any of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

from cachetools import LRUCache

from letta_common.errors import InvalidArgument, ServiceUnavailable
from letta_common.fair_slots import FairSlots, Shares
from letta_sandbox.calls import Env, EnvSpec
from letta_sandbox.local.hosts import Interpreter
from letta_sandbox.requirements import read_python

_LOCKED = re.compile(r"(?:[a-z0-9-]+==[A-Za-z0-9.+!_-]+|    --hash=sha256:[0-9a-f]{64})(?: \\)?|[ ]*#.*|")
# Large wheels over a slow line; calls of the tool wait meanwhile.
_TIMEOUT = 600.0
_CONTENTS = "letta-environment.json"
_PASSED_ON = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE")
_SHARES = Shares(slots=8, tenant_slots=2)
_MOST_KNOWN = 1024
_UNREACHABLE = ("network", "connect", "timed out", "dns", "request failed", "fetch")


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Where packages come from and go to. Without a directory nothing is installed."""

    directory: str = ""
    index_url: str = ""


class Installer:
    """Keeps one directory of packages for each lock.

    The installer gets what tenants ask for as lines that were put together anew from parsed requirements, so nothing in
    them is an option, an address or a file. It takes wheels alone and builds none, so no code of a package runs here.
    """

    def __init__(self, source: PackageSource) -> None:
        self._source = source
        self._known: LRUCache[tuple[str, ...], Env] = LRUCache(_MOST_KNOWN)
        self._slots = FairSlots(_SHARES, "package installs")
        self._locks: weakref.WeakValueDictionary[tuple[str, ...], asyncio.Lock] = weakref.WeakValueDictionary()

    async def install(self, spec: EnvSpec, python: Interpreter) -> Env:
        """Return the environment of these requirements, installing what is not there.

        Raises:
            InvalidArgument: a specifier is none, or no wheels satisfy all of them.
            ServiceUnavailable: the package index cannot be reached, or is too slow.
            RateLimited: too much of the organization waits to be installed.
        """
        wanted = tuple(sorted(set(map(read_python, spec.requirements))))
        known = self._known.get(wanted)
        if known is None:
            async with self._slots.hold(spec.organization_id), self._locks.setdefault(wanted, asyncio.Lock()):
                known = self._known[wanted] = self._known.get(wanted) or await self._install(wanted, python)
        return Env(key=known.key, path=known.path, organization_id=spec.organization_id, modules=known.modules)

    async def _install(self, wanted: tuple[str, ...], python: Interpreter) -> Env:
        root = self._root()
        lock = await self._resolve(root, wanted, python)
        key = _digest(lock, str(python.version), platform.machine(), platform.system())
        place = root / "envs" / key
        if not await asyncio.to_thread(place.exists):
            await self._fill(root, place, lock, python)
        modules = json.loads(await asyncio.to_thread((place / _CONTENTS).read_text))
        return Env(key=key, path=str(place), modules=tuple(_wanted_modules(modules, wanted)))

    def _root(self) -> Path:
        if not self._source.directory:
            raise InvalidArgument("this deployment installs no packages for tools: set tools_package_directory")
        root = Path(self._source.directory).resolve()
        # Each call mounts a /tmp of its own over the host's, so the packages would not be there.
        if root.is_relative_to("/tmp"):  # noqa: S108
            raise InvalidArgument("tools_package_directory must not lie under /tmp, which each call has its own of")
        for name in ("locks", "envs", "cache"):
            (root / name).mkdir(parents=True, exist_ok=True)
        return root

    async def _resolve(self, root: Path, wanted: tuple[str, ...], python: Interpreter) -> str:
        """Return the lock: every package with its version and hashes. It is made once."""
        file = root / "locks" / _digest(*wanted, str(python.version), platform.machine(), self._source.index_url)
        if not await asyncio.to_thread(file.exists):
            arguments = ["pip", "compile", "--generate-hashes", "--only-binary", ":all:", "--no-header", "--quiet", "-"]
            lock = _checked(await self._uv(root, [*arguments, "--python", python.path], "\n".join(wanted)))
            await asyncio.to_thread(_write_whole, file, lock)
        return await asyncio.to_thread(file.read_text)

    async def _fill(self, root: Path, place: Path, lock: str, python: Interpreter) -> None:
        """Install into a directory of its own and give it its name when it is whole."""
        made = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="new-", dir=root))
        try:
            await asyncio.to_thread((made / "lock.txt").write_text, lock)
            arguments = [
                "pip",
                "install",
                "--only-binary",
                ":all:",
                "--require-hashes",
                "--no-deps",
                "--compile-bytecode",
            ]
            target = ["--target", str(made / "packages"), "--python", python.path, "-r", str(made / "lock.txt")]
            await self._uv(root, [*arguments, "--quiet", *target], "")
            await asyncio.to_thread(_finish, made / "packages")
            await asyncio.to_thread(_settle, made / "packages", place)
        finally:
            await asyncio.to_thread(shutil.rmtree, made, True)

    async def _uv(self, root: Path, arguments: list[str], given: str) -> str:
        environment = {name: value for name in _PASSED_ON if (value := os.environ.get(name))}
        environment |= {"PATH": "/usr/bin:/bin", "HOME": str(root), "UV_CACHE_DIR": str(root / "cache")}
        index = ["--index-url", self._source.index_url] if self._source.index_url else []
        process = await asyncio.create_subprocess_exec(
            *(_find_uv(), *arguments, *index, "--no-config", "--no-python-downloads", "--no-progress"),
            env=environment,
            cwd=root,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(given.encode()), _TIMEOUT)
        except TimeoutError as error:
            raise ServiceUnavailable(f"the packages could not be fetched within {_TIMEOUT:g} s; try again") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise _failure(self._neutral(root, err.decode(errors="replace")))
        return out.decode()

    def _neutral(self, root: Path, message: str) -> str:
        """Leave out where this host and its package index are."""
        # A NUL stands for an address that is not set, as no message contains it.
        address = self._source.index_url.rstrip("/")
        return message.replace(str(root), "packages").replace(address or "\0", "the package index")


def _failure(message: str) -> InvalidArgument | ServiceUnavailable:
    text = " ".join(message.split())[-800:]
    if any(word in text.lower() for word in _UNREACHABLE):
        return ServiceUnavailable(f"the package index cannot be reached: {text}")
    return InvalidArgument(f"the requirements cannot be installed from wheels: {text}")


def _checked(lock: str) -> str:
    """Refuse a lock with anything but versions of packages and their hashes."""
    for line in lock.splitlines():
        if not _LOCKED.fullmatch(line):
            raise InvalidArgument(f"the requirements need what comes from no index: {line[:200]}")
    return lock


def _find_uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        raise InvalidArgument("this deployment installs no packages for tools: uv is not installed")
    return found


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _write_whole(file: Path, text: str) -> None:
    new = file.with_suffix(f".{os.getpid()}")
    new.write_text(text)
    new.rename(file)


def _finish(packages: Path) -> None:
    """Note which package has which modules, and let every user read, nobody write."""
    packages.mkdir(exist_ok=True)
    contents: dict[str, list[str]] = {}
    for info in packages.glob("*.dist-info"):
        name = re.sub(r"[-_.]+", "-", info.name.split("-")[0]).lower()
        first = {line.split("/")[0].split(",")[0] for line in (info / "RECORD").read_text().splitlines()}
        # RECORD lists every file of a distribution; the first part of its path is the module that it belongs to.
        contents[name] = sorted(part.removesuffix(".py") for part in first if part.removesuffix(".py").isidentifier())
    (packages / _CONTENTS).write_text(json.dumps(contents))
    for directory, _, names in os.walk(packages):
        Path(directory).chmod(0o755)
        for name in names:
            file = Path(directory) / name
            if not file.is_symlink():
                file.chmod(0o644)


def _settle(made: Path, place: Path) -> None:
    """Give a whole directory its name, unless another process of the service was first."""
    try:
        made.rename(place)
    except OSError:
        if not place.exists():
            raise


def _wanted_modules(contents: dict[str, list[str]], wanted: tuple[str, ...]) -> list[str]:
    """Return the modules of the packages that were asked for by name, to be imported ahead of calls."""
    names = [re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", text)[0]).lower() for text in wanted]
    return [module for name in names for module in contents.get(name, []) if not module.startswith("_")]
