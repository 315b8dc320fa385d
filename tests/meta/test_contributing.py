"""The files that CONTRIBUTING names for a change are those that a worked example of it touches; the example applies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "tests/data/contributing"
CHANGES = ["field", "rpc", "filter", "provider"]
_SECTION = re.compile(r"^### .*?(?=^##)", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"Example: `(\w+)\.patch`")
_FILE = re.compile(r"^\d+\. (\(?)`([^`]+)`", re.MULTILINE)


def sections() -> dict[str, str]:
    """Return the text about each kind of change that has an example, by the example's name."""
    found = _SECTION.findall((ROOT / "CONTRIBUTING.md").read_text())
    return {name[1]: text for text in found if (name := _EXAMPLE.search(text))}


def named(text: str) -> dict[re.Pattern[str], bool]:
    """Return the files that a text names, as patterns, and whether each is always touched."""
    return {
        re.compile(re.sub(r"<\w+>", r"[a-z0-9_]+", re.sub(r"\.(?=\w+$)", r"\\.", path))): not bracket
        for bracket, path in _FILE.findall(text)
    }


def touched(patch: Path) -> list[str]:
    return re.findall(r"^diff --git a/\S+ b/(\S+)$", patch.read_text(), re.MULTILINE)


def test_each_example_is_told():
    assert (
        sections().keys() == {path.stem for path in EXAMPLES.glob("*.patch")} == {"field", "rpc", "filter", "provider"}
    )


@pytest.mark.parametrize("name", CHANGES)
def test_an_example_touches_the_named_files_and_no_others(name: str):
    files, known = touched(EXAMPLES / f"{name}.patch"), named(sections()[name])

    assert files
    assert [path for path in files if not any(pattern.fullmatch(path) for pattern in known)] == []
    always = [pattern for pattern, needed in known.items() if needed]
    assert [pattern.pattern for pattern in always if not any(map(pattern.fullmatch, files))] == []


@pytest.mark.parametrize("name", CHANGES)
def test_an_example_applies_to_this_tree(name: str, tmp_path: Path):
    patch = EXAMPLES / f"{name}.patch"
    for path in touched(patch):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).exists():
            shutil.copy(ROOT / path, tmp_path / path)

    done = subprocess.run(["git", "apply", "-C1", patch], cwd=tmp_path, check=False, capture_output=True, text=True)

    assert done.returncode == 0, f"{done.stderr}: renew {patch.relative_to(ROOT)}"
    for path in touched(patch):
        text = (tmp_path / path).read_text()
        assert not (ROOT / path).exists() or text != (ROOT / path).read_text(), path
        if path.endswith(".py"):
            compile(text, path, "exec")


def test_the_provider_of_the_example_needs_nothing_else(tmp_path: Path):
    """Its tests run in a copy of the model gateway and of the tests, changed by the example alone."""
    source, suites = "services/llm_gateway/src/letta_llm_gateway", "tests/contract/providers/llm_gateway"
    for folder in (source, suites, "tests/fakes", "tests/support"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests/data").mkdir()
    for path in ("pyproject.toml", "tests/data/authority.pem", *(f"tests/{at.name}" for at in ROOT.glob("tests/*.py"))):
        shutil.copy(ROOT / path, tmp_path / path)
    subprocess.run(["git", "apply", "-C1", EXAMPLES / "provider.patch"], cwd=tmp_path, check=True)
    [tests] = [path for path in touched(EXAMPLES / "provider.patch") if path.startswith(suites)]

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", tests],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / source / ".."), str(tmp_path), *sys.path])},
        check=False,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stdout
