"""Follows one message without tools from HTTP to HTTP and lists the files and shapes it passes.

    python -m benchmarks.walk            # prints the table of docs/explanation/architecture.md
    python -m benchmarks.walk --write    # renews it

Everything runs in one process with the builtin model. A file counts when a function of it runs. A shape is a message of
the contracts, a dataclass or a named tuple of ours that a function takes or returns.

What the background does meanwhile is not of this message and does not count: renewing leases, looking for work and for
runs that somebody cancelled, asking for health. A task is the message's when what read its bytes made it, or another
task of the message; it counts to its end. What runs without a task, such as reading a socket, always counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import WeakSet

from google.protobuf.message import Message

from letta_cli.servers.schemas import upgrade_all
from letta_cli.servers.stack import Stack
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
BEGIN, END = "<!-- Made by `python -m benchmarks.walk --write`. Do not edit. -->", "<!-- End of what is made. -->"
MOST_ITEMS = 50
SETTLE_SECONDS = 1.0


class Walk:
    """Notes the files and shapes of what runs while it watches, in the order of their first use."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.shapes: dict[str, None] = {}
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._reading = False

    def watch(self, frame: FrameType, event: str, value: Any) -> None:
        """Note one call or return of a function of ours."""
        if frame.f_code.co_name == "data_received":
            self._reading = event == "call"
        file = frame.f_code.co_filename.removeprefix(f"{ROOT}/")
        if event not in {"call", "return"} or "/src/letta_" not in file or file.startswith(("libs/protos", ".venv")):
            return
        task = _task()
        if task is not None and task not in self._tasks:
            return
        self.files.setdefault(file)
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if event == "call" else ()
        for each in [frame.f_locals.get(name) for name in names] if event == "call" else [value]:
            self._note(each)

    def task(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        """Make a task, and remember it when it is the message's."""
        made = asyncio.Task(work, loop=loop, **more)
        if self._reading or _task() in self._tasks:
            self._tasks.add(made)
        return made

    def _note(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, Message):
            self.shapes.setdefault(kind.DESCRIPTOR.full_name)
        elif kind.__module__.startswith("letta_") and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
            self.shapes.setdefault(f"{kind.__module__}.{kind.__qualname__}")
        elif isinstance(value, list | tuple):
            for each in value[:MOST_ITEMS]:
                self._note(each)

    def table(self) -> str:
        """Return the page's part: the figures, and a row for each package."""
        rows: dict[str, tuple[list[str], list[str]]] = {}
        for file in self.files:
            package, _, inner = file.partition("/src/")[2].partition("/")
            rows.setdefault(package, ([], []))[0].append(inner)
        for shape in self.shapes:
            package = "contracts" if shape.startswith(("letta.", "google.")) else shape.partition(".")[0]
            rows.setdefault(package, ([], []))[1].append(shape.removeprefix(f"{package}."))
        lines = [f"{len(self.files)} files and {len(self.shapes)} shapes.", "", "| package | files | shapes |"]
        lines += ["|---|---|---|", *(_row(package, *cells) for package, cells in rows.items())]
        return "\n".join(lines)


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return None


def _row(package: str, files: list[str], shapes: list[str]) -> str:
    told = [f"{len(names)}: {', '.join(f'`{name}`' for name in names)}" if names else "" for names in (files, shapes)]
    return f"| `{package}` | {told[0]} | {told[1]} |"


def _post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


async def follow() -> Walk:
    """Start everything, warm it up, and follow one message."""
    walk = Walk()
    with (
        tempfile.TemporaryDirectory(prefix="letta-walk-") as place,
        EmbeddedPostgres(Path(place, "pg"), PostgresOptions(durable=False)) as server,
    ):
        await upgrade_all(server.dsn())
        bind = f"127.0.0.1:{free_port()}"
        arguments = {"database_url": server.dsn(), "home": Path(place), "dev_mode": True}
        stack = Stack({**arguments, "bind": f"127.0.0.1:{free_port()}"}, http_bind=bind)
        await stack.start()
        try:
            await _send(f"http://{bind}/v1/agents/", walk)
        finally:
            await stack.stop()
    return walk


async def _send(agents: str, walk: Walk) -> None:
    blocks = [{"label": "human", "value": "Name: Sam."}]
    agent = await asyncio.to_thread(_post, agents, {"model": "builtin/rules", "memory_blocks": blocks})
    place, message = f"{agents}{agent['id']}/messages", {"messages": [{"role": "user", "content": "hi"}]}
    await asyncio.to_thread(_post, place, message)  # what is read once a process has been read then
    await asyncio.sleep(SETTLE_SECONDS)
    loop = asyncio.get_running_loop()
    loop.set_task_factory(walk.task)  # type: ignore[arg-type]
    threading.setprofile(walk.watch)
    sys.setprofile(walk.watch)
    try:
        await asyncio.to_thread(_post, place, message)
    finally:
        sys.setprofile(None)
        loop.set_task_factory(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def main(arguments: list[str]) -> None:
    """Print the table, or write it into the page."""
    table = asyncio.run(follow()).table()
    if "--write" not in arguments:
        sys.stdout.write(table + "\n")
        return
    made = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    PAGE.write_text(made.sub(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", PAGE.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
