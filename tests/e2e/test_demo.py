"""The demo: two facts over gRPC, a restart of everything, the facts asked for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress

import pytest

PORT = 50051


def run(home) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LETTA", "OPENAI", "ANTHROPIC"))}
    command = [sys.executable, "-m", "letta_cli", "demo"]
    variables = {**kept, "LETTA_HOME": str(home), "LETTA_OLLAMA_PROBE": "false", "COLUMNS": "200"}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("taken", [False, True], ids=["ports as they are", "50051 taken"])
def test_the_facts_come_back_after_a_restart(taken, tmp_path):
    with ExitStack() as held:
        if taken:
            with suppress(OSError):  # somebody else has it: as good
                held.enter_context(socket.create_server(("127.0.0.1", PORT)))
        done = run(tmp_path)

    assert done.returncode == 0, done.stderr
    asked = done.stdout.partition("What is my name?")[2]
    assert "Sam" in asked
    assert "peanuts" in asked.partition("What am I allergic to?")[2]
    assert done.stderr.count("healthy after") == 2
