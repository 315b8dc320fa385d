"""Runs in a machine, as `python -c`: one call in a child process, watched, its outcome written as one line of JSON.

Only the standard library is there. The harness comes along as source and sees the same call as on the local provider.
A machine may be used again by the same tenant: no process of the call is left then, nor its own directory.
"""

from __future__ import annotations

import base64
import ctypes
import io
import json
import os
import resource
import select
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import types
from pathlib import Path
from typing import Any

_PIECE = 1 << 16
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER
_CLEAR_SECONDS = 2.0
_KEPT_VARIABLES = ("HOME", "LANG", "PATH", "TMPDIR")
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4


def main(sources: list[tuple[str, str]]) -> None:
    """Read the job from standard input, run it, write what happened to standard output."""
    given = sys.stdin.buffer
    job = json.loads(given.readline())
    request = given.read(job["request_bytes"])
    packages = given.read(job["package_bytes"])
    _unpack(job["packages"], packages)
    place = tempfile.mkdtemp(prefix="letta-")
    os.chdir(place)
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
    answer = _watched(_load(sources), request, job)
    answer["clean"] = _cleared()
    os.chdir("/")
    shutil.rmtree(place, ignore_errors=True)
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _unpack(key: str, packages: bytes) -> None:
    """Have the packages of this key importable; a machine that was used before has them already."""
    if not key:
        return
    place = str(Path(tempfile.gettempdir(), f"letta-packages-{key}"))
    if packages:
        with tarfile.open(fileobj=io.BytesIO(packages)) as archive:
            archive.extractall(place, **_FILTER)  # noqa: S202 - what this service packed
    sys.path.insert(0, place)


def _load(sources: list[tuple[str, str]]) -> Any:
    """Make modules of the sources; the last one is the harness."""
    module: Any = None
    for name, source in sources:
        parts = name.split(".")
        for end in range(1, len(parts)):
            sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
        module = sys.modules[name] = types.ModuleType(name)
        exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102 - what this service sent along
    return module


def _watched(harness: Any, request: bytes, job: dict[str, Any]) -> dict[str, Any]:
    kept, name = tempfile.mkstemp()
    Path(name).unlink()
    with os.fdopen(os.dup(kept), "wb") as file:
        file.write(request)
    os.lseek(kept, 0, os.SEEK_SET)
    pipes = {name: os.pipe() for name in ("frame", "stdout", "stderr")}
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(harness, kept, {name: ends[1] for name, ends in pipes.items()}, job)
    for _, write_end in pipes.values():
        os.close(write_end)
    answer = _collect(child, {ends[0]: what for what, ends in pipes.items()}, job, begun + job["timeout_seconds"])
    answer["wall_seconds"] = time.monotonic() - begun
    return answer


def _become(harness: Any, request: int, ends: dict[str, int], job: dict[str, Any]) -> None:
    """Be the process of the call."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(ends["stdout"], 1)
    os.dup2(ends["stderr"], 2)
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    os.closerange(max(*ends.values(), request) + 1, 4096)
    seconds = int(job["timeout_seconds"]) + 1
    for what, most in (
        (resource.RLIMIT_DATA, job["memory_bytes"]),
        (resource.RLIMIT_AS, job["memory_bytes"] + (256 << 20)),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, job["scratch_bytes"]),
        (resource.RLIMIT_NOFILE, job["open_files"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    try:
        harness.serve(request, ends["frame"])
    finally:
        os._exit(70)


def _collect(child: int, names: dict[int, str], job: dict[str, Any], end: float) -> dict[str, Any]:
    """Read what the child writes until its frame is whole, a limit is reached or the time is up."""
    parts = {"frame": b"", "stdout": b"", "stderr": b""}
    answer: dict[str, Any] = {"timed_out": False, "frame_exceeded": False, "output_exceeded": False}
    open_ends = dict(names)
    while open_ends:
        left = end - time.monotonic()
        if left <= 0:
            answer["timed_out"] = True
            break
        ready, _, _ = select.select(list(open_ends), [], [], left)
        for file in ready:
            piece = os.read(file, _PIECE)
            if not piece:
                del open_ends[file]
            parts[names[file]] += piece
        answer["frame_exceeded"] = len(parts["frame"]) > job["frame_bytes"]
        answer["output_exceeded"] = len(parts["stdout"]) + len(parts["stderr"]) > job["output_bytes"]
        if answer["frame_exceeded"] or answer["output_exceeded"]:
            break
    answer |= _buried(child, kill=bool(open_ends))
    parts["stdout"] = parts["stdout"][: job["output_bytes"]]
    parts["stderr"] = parts["stderr"][: job["output_bytes"] - len(parts["stdout"])]
    parts["frame"] = parts["frame"][: job["frame_bytes"]]
    return answer | {name: base64.b64encode(part).decode() for name, part in parts.items()}


def _buried(child: int, *, kill: bool) -> dict[str, Any]:
    if kill:
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    return {"status": status, "cpu_seconds": seconds, "peak_memory_bytes": usage.ru_maxrss * 1024}


def _cleared() -> bool:
    """End every process that the call left behind, which are this one's children now. Say whether none is left."""
    end = time.monotonic() + _CLEAR_SECONDS
    while time.monotonic() < end:
        try:
            pid = os.waitpid(-1, os.WNOHANG)[0]
        except ChildProcessError:
            return True
        if pid == 0:
            _kill_children()
            time.sleep(0.002)
    return False


def _kill_children() -> None:
    own = os.getpid()
    try:
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    except OSError:  # this kernel does not list them: the machine is not used again
        return
    for child in children:
        os.kill(int(child), signal.SIGKILL)
