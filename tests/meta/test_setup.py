"""The first command of a newcomer: the Python is looked at before anything is made, and the reason is one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python_of(place: Path, version: str, *, venv: bool = True) -> Path:
    """Make a program that answers as a Python of this version does."""
    place.parent.mkdir(parents=True, exist_ok=True)
    old = "1" if tuple(map(int, version.split("."))) < (3, 11) else "0"
    cases = f"*ensurepip*) exit {0 if venv else 1};; *print*) echo {version};; *sys.exit*) exit {old};;"
    place.write_text(f'#!/bin/sh\ncase "$2" in {cases} esac\n')
    place.chmod(0o755)
    return place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for file in ("requirements.lock", *(path.relative_to(ROOT) for path in ROOT.glob("*/*/pyproject.toml"))):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    shutil.copytree(ROOT / "cli", tmp_path / "cli", ignore=shutil.ignore_patterns("src"))
    return tmp_path


def make(tree: Path, python: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "demo", f"PYTHON={python}"]
    # Below `make test` the variables of that make would make this one say so in each line.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60, check=False, env=environment)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    line, *rest = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("error: ")
    assert all(one.startswith("make: ***") for one in rest), done.stderr
    return line


@pytest.mark.parametrize("version", ["3.9.2", "3.10.14", "2.7.18"])
def test_an_old_python_is_refused_before_anything_is_made(tree: Path, version: str):
    line = refused(make(tree, python_of(tree / "bin" / "python", version)))

    assert version in line
    assert "PYTHON=" in line
    assert not (tree / ".venv").exists()


def test_a_missing_python_is_said(tree: Path):
    assert "no nothing-like-python" in refused(make(tree, "nothing-like-python"))


def test_a_python_without_venv_is_said(tree: Path):
    assert "python3-venv" in refused(make(tree, python_of(tree / "bin" / "python", "3.12.1", venv=False)))


def test_the_whole_product_reads_every_format_of_files():
    formats = tomllib.loads((ROOT / "libs/documents/pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.split(r"[\[><=]", one)[0] for one in formats["formats"]}
    locked = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}

    assert names
    assert names <= locked


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_each_locked_package_has_its_hashes(lock: str):
    entries = re.split(r"(?<!\\)\n", (ROOT / lock).read_text().strip())

    assert [
        entry for entry in entries if not re.search(r"^[\w.-]+==[^\\]+(\\\n +--hash=sha256:[0-9a-f]{64} ?)+$", entry)
    ] == []


def recorded(tree: Path, *, uv_works: bool) -> list[str]:
    """Run the installation with programs that write down how they are called; uv is refused or not."""
    (tree / ".venv" / "bin").mkdir(parents=True)
    for name, status in (("uv", 0 if uv_works else 1), ("python", 0)):
        program = tree / ".venv" / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $@" >> {tree}/calls\nexit {status}\n')
        program.chmod(0o755)
    command = ["scripts/install.sh", "requirements.lock", "-e", "cli"]
    subprocess.run(command, cwd=tree, capture_output=True, timeout=60, check=True)
    return [line for line in (tree / "calls").read_text().splitlines() if " install " in line]


@pytest.mark.parametrize("uv_works", [True, False], ids=["uv", "pip"])
def test_packages_are_installed_by_hash_and_members_apart(tree: Path, *, uv_works: bool):
    calls = [call for call in recorded(tree, uv_works=uv_works) if call.startswith("uv" if uv_works else "python")]

    assert [call.partition("--no-deps ")[2] for call in calls] == ["--require-hashes -r requirements.lock", "-e cli"]


def test_an_old_environment_is_said(tree: Path):
    python_of(tree / ".venv" / "bin" / "python", "3.9.2")
    assert "make clean" in refused(make(tree, python_of(tree / "bin" / "python", "3.12.1")))
