"""What every process needs once exists once: one machine for background work, one for batches, one seal, one logger."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from letta_agent import wiring as agent
from letta_auth import wiring as auth
from letta_llm_gateway import wiring as models
from letta_tools import wiring as tools

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for root in ("libs", "services", "cli") for path in (ROOT / root).rglob("src/letta_*/**/*.py"))
PAUSES = {"sleep", "wait_for", "timeout"}
WRITER = {"libs/common/src/letta_common/process/batches.py"}  # it waits for rows


def test_background_work_is_periodic():
    endless = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.While) and is_endless(node)
    }

    assert endless == WRITER


def is_endless(loop: ast.While) -> bool:
    """Say whether a loop pauses again and again and nothing in it ends it."""
    ends = any(isinstance(node, ast.Return | ast.Break | ast.Raise | ast.Yield) for node in ast.walk(loop))
    return isinstance(loop.test, ast.Constant) and not ends and bool(PAUSES & set(called(loop)))


def called(loop: ast.While) -> Iterator[str]:
    for node in ast.walk(loop):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr


def test_one_file_encrypts():
    ciphers = {"AESGCM", "ChaCha20Poly1305", "Fernet", "HKDF"}
    users = [
        path.relative_to(ROOT).as_posix() for path in SOURCES if ciphers & set(re.findall(r"\w+", path.read_text()))
    ]

    assert users == ["libs/common/src/letta_common/sealing.py"]


def test_what_is_sealed_is_sealed_anew_after_a_rotation():
    """Each place that a service seals for is a column that its wiring names."""
    named = {column.name for wiring in (agent, auth, models, tools) for column in wiring.SEALED}
    sealed = {
        text
        for path in SOURCES
        if "SealedAt(" in path.read_text()
        for text in re.findall(r'"((?:agent|auth|llm|memory|tools)\.[a-z_.]+)"', path.read_text())
    }

    assert {text for text in sealed if text.count(".") == 2} <= named
    assert {text for text in sealed if text.count(".") == 1} <= {name.rpartition(".")[0] for name in named}
    assert len(named) == 8


def test_there_is_one_logger():
    """Libraries that know nothing of the product write as libraries do; what the command imports starts in time."""
    plain = {path for path in SOURCES if "logging.getLogger(" in path.read_text()}
    names = {path.relative_to(ROOT).as_posix() for path in plain}

    assert {name for name in names if not name.startswith(("libs/transcode/", "libs/embedded_postgres/"))} == {
        "libs/rpc/src/letta_rpc/rpc_errors.py",
        "libs/rpc/src/letta_rpc/startup/logs.py",
    }
