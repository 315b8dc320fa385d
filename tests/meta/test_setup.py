"""The first command of a newcomer: the Python is looked at before anything is made, and the reason is one line."""

from __future__ import annotations

import os
import shutil
import subprocess
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


def test_an_old_environment_is_said(tree: Path):
    python_of(tree / ".venv" / "bin" / "python", "3.9.2")
    assert "make clean" in refused(make(tree, python_of(tree / "bin" / "python", "3.12.1")))
