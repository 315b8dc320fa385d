"""What a log line holds."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from letta_common.actor import Request, bind_request
from letta_common.process.settings import Settings
from letta_rpc.startup import logs


@pytest.fixture(autouse=True)
def request_id() -> Iterator[None]:
    bind_request(Request(request_id="req-1"))
    yield
    bind_request(Request())


def fail(password: str) -> None:
    raise RuntimeError("broken")


def write(settings: Any) -> None:
    logs.configure(settings)
    log = structlog.get_logger("test")
    log.debug("hidden")
    try:
        fail("hunter2")
    except RuntimeError:
        log.exception("failed", agent_id="agent-1")


def test_line_is_json_with_request_id_and_cause_but_no_variables(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(Settings(home=tmp_path))
    line = json.loads(capsys.readouterr().err)

    assert tuple(line[k] for k in ("event", "level", "request_id", "agent_id")) == (
        "failed",
        "error",
        "req-1",
        "agent-1",
    )
    assert "RuntimeError: broken" in line["exception"]
    assert "hunter2" not in line["exception"].replace('fail("hunter2")', "")


def test_console_shows_no_variables_either(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(Settings(home=tmp_path, log_format="console", log_level="debug"))

    output = capsys.readouterr().err

    assert "hidden" in output
    assert "password" not in output.replace("def fail(password", "")


def test_what_libraries_write_has_the_same_form(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    logs.configure(Settings(home=tmp_path))
    structlog.get_logger("letta.test").warning("ours")
    logging.getLogger("uvicorn.error").error("theirs %s", 1)
    logging.getLogger("letta.llm").info("ours by logging")
    logging.getLogger("httpx").info("hidden")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"].splitlines()[0] for line in lines] == ["ours", "theirs 1", "ours by logging"]
    assert {frozenset(line) for line in lines} == {frozenset(("event", "level", "logger", "timestamp", "request_id"))}


WRITE = """
import logging, structlog
from letta_rpc.startup import logs
from letta_common.process.settings import Settings
logs.configure(Settings())
structlog.get_logger("letta.one").warning("ours", agent_id="agent-1")
logging.getLogger("grpc").error("theirs")
"""


def test_lines_are_for_people_on_a_terminal_and_json_elsewhere(tmp_path: Path) -> None:
    variables = {**os.environ, "LETTA_HOME": str(tmp_path), "NO_COLOR": "1"}
    piped = subprocess.run([sys.executable, "-c", WRITE], env=variables, capture_output=True, text=True, check=True)
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", WRITE], env=variables, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)

    assert [json.loads(line)["event"] for line in piped.stderr.splitlines()] == ["ours", "theirs"]
    assert "{" not in shown
    assert all(word in shown for word in ("ours", "agent_id=agent-1", "theirs", "[letta.one]", "[grpc]"))
