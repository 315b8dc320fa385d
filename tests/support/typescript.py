"""The unmodified TypeScript SDK: a process of Node that makes its calls and says what they answered."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SDK = "@letta-ai/letta-client@1.12.1"
SCRIPTS = Path(__file__).parents[1] / "compat" / "typescript"


class Refused(Exception):
    """The SDK raised an error of the API."""

    def __init__(self, name: str, status: int | None, message: str) -> None:
        super().__init__(f"{name} {status}: {message}")
        self.name, self.status = name, status


class TypeScriptClient:
    """A client of the TypeScript SDK, whose methods are called by their path."""

    def __init__(self, node: subprocess.Popen[str]) -> None:
        self._node = node

    def call(self, path: str, *args: Any) -> Any:
        """Call `client.<path>(*args)`; of a page return its items. Raises Refused.

        What looks like `{"$file": name, "text": text}` is a file.
        """
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(json.dumps({"path": path, "args": args}) + "\n")
        self._node.stdin.flush()
        answer = json.loads(self._node.stdout.readline())
        if "error" in answer:
            raise Refused(**answer["error"])
        return answer.get("value")


@contextmanager
def typescript_client(url: str) -> Iterator[TypeScriptClient]:
    """Start a client. Skips where the SDK cannot be had."""
    script = in_sdk("calls.mjs")
    with subprocess.Popen(["node", script, url], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        try:
            yield TypeScriptClient(node)
        finally:
            node.kill()


def in_sdk(name: str) -> Path:
    """Put a script where it finds the SDK, which is installed once. Skips where npm is missing or cannot install it."""
    home = Path(__file__).parents[2] / ".venv" / "typescript"
    if not (home / "node_modules" / "@letta-ai").is_dir():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed")
        ran = subprocess.run(
            ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(home), SDK],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if ran.returncode:
            pytest.skip(f"npm cannot install the SDK: {ran.stderr[-200:]}")
    return Path(shutil.copy(SCRIPTS / name, home / name))
