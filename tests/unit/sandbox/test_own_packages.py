"""Packages of the operator that calls use, and bytes that go to a call as they are."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from letta_common.errors import IsolationUnavailable
from letta_sandbox.calls import CallEnding, Env, Language, SandboxCall, Signature
from letta_sandbox.local.hosts import OwnPackages
from letta_sandbox.local.provider import LocalProvider

USE = """
import sys
from own_package.numbers import doubled

def f(number: int):
    from own_package import late
    return [doubled(number), late.NAME, "own_package.numbers" in sys.modules]
"""
WRITE = """
import os

def f(place: str):
    os.mkdir(place)
"""


@pytest.fixture
def packages(monkeypatch) -> Iterator[Path]:
    """A package of the operator that every user may read; not under /tmp, which calls have of their own."""
    place = Path(tempfile.mkdtemp(prefix="letta-own-", dir="/var/tmp"))
    place.chmod(0o755)
    (place / "own_package").mkdir()
    for name, text in (
        ("__init__", ""),
        ("numbers", "def doubled(number):\n    return 2 * number\n"),
        ("late", "NAME = 'late'\n"),
        ("broken", "import nothing_of_this_name\n"),
    ):
        (place / "own_package" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(place))
    yield place
    shutil.rmtree(place)


@pytest.fixture
async def owning(provider, packages) -> AsyncIterator[LocalProvider]:
    own = OwnPackages(packages=("own_package", "package_that_is_not_installed"), modules=("own_package.numbers",))
    owning = LocalProvider(replace(provider._options, own=own))
    yield owning
    await owning.close()


async def test_calls_use_them(owning):
    result = await owning.run(SandboxCall(USE, "f", '{"number": 4}'), Env())

    assert (result.status, result.result) == (CallEnding.SUCCESS, '[8,"late",true]'), result


async def test_calls_cannot_change_them(owning, packages):
    result = await owning.run(SandboxCall(WRITE, "f", f'{{"place": "{packages}/own_package/more"}}'), Env())

    assert result.status is not CallEnding.SUCCESS
    assert not (packages / "own_package" / "more").exists()


async def test_one_that_cannot_be_imported_is_named(provider, packages):
    own = OwnPackages(packages=("own_package",), modules=("own_package.broken",))
    broken = LocalProvider(replace(provider._options, own=own))
    report = await broken.probe()
    await broken.close()

    assert report.isolation is None
    assert "nothing_of_this_name" in report.missing[0]


async def test_another_python_cannot_load_them(provider, packages, tmp_path):
    other = tmp_path / "python"
    other.write_text(f"#!/bin/sh\n{sys.executable} \"$@\" | sed 's/\\[3, [0-9]*\\]/[3, 8]/'\n")
    other.chmod(0o755)
    own = OwnPackages(packages=("own_package",), modules=("own_package.numbers",))
    broken = LocalProvider(replace(provider._options, own=own, interpreter=str(other)))

    with pytest.raises(IsolationUnavailable, match="cannot load packages of Python"):
        await broken.run(SandboxCall(USE, "f", '{"number": 4}'), Env())
    await broken.close()


async def test_an_attachment_comes_byte_by_byte(run):
    source = "def f(attachment, more):\n    return [list(attachment), more]\n"

    for data in (b"", b"\n", bytes(range(256)), b"{}\n\0\n"):
        result = await run(source, '{"more": "\\n"}', attachment=data)
        assert result.result.replace(" ", "") == f'[{list(data)},"\\n"]'.replace(" ", ""), result


async def test_a_large_attachment_comes_whole(run):
    source = "import hashlib\ndef f(attachment):\n    return hashlib.sha256(attachment).hexdigest()\n"
    data = bytes(range(256)) * (1 << 17)
    result = await run(source, attachment=data)

    assert result.result == f'"{hashlib.sha256(data).hexdigest()}"'


async def test_a_function_that_takes_no_attachment_fails_with_one(run):
    result = await run("def f():\n    return 1\n", attachment=b"a")

    assert result.status is CallEnding.TOOL_ERROR
    assert "attachment" in result.failure.message


async def test_a_function_in_javascript_takes_none(provider):
    call = SandboxCall(
        "export function f() {}", "f", language=Language.JAVASCRIPT, signature=Signature(), attachment=b""
    )
    result = await provider.run(call, Env())

    assert (result.status, result.failure.kind) == (CallEnding.REFUSED, "BadRequest")
