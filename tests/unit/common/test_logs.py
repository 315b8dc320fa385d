"""What a log line holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from letta_common import logs
from letta_common.actor import Request, bind_request
from letta_common.settings import Settings


@pytest.fixture(autouse=True)
def request_id() -> Iterator[None]:
    bind_request(Request(request_id="req-1"))
    yield
    bind_request(Request())
    structlog.reset_defaults()


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
