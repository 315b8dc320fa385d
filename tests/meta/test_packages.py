"""Every member installs from its path, called from anywhere, and finds the others beside it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = sorted(
    path.parent for kind in ("libs/*", "services/*", "cli") for path in ROOT.glob(f"{kind}/pyproject.toml")
)
FLAGS = ("--quiet", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(path for kind in ("docs", "libs", "services") for path in ROOT.glob(f"{kind}/**/*.md")),
]


def requirements(member: Path) -> list[str]:
    project = tomllib.loads((member / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [*project["dependencies"], *(one for extra in extras for one in extra)]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.name)
def test_members_depend_on_each_other_by_place(member: Path):
    """A bare name would be looked up in a registry, where anybody may have taken it."""
    own = [one for one in requirements(member) if one.startswith("letta-")]
    up = "{root:parent:uri}" if member.parent == ROOT else "{root:parent:parent:uri}"
    places = [one.partition(f" @ {up}/")[2] for one in own]

    assert all((ROOT / place / "pyproject.toml").is_file() and place for place in places), own


def test_no_document_installs_a_member_by_name():
    names = {tomllib.loads((member / "pyproject.toml").read_text())["project"]["name"] for member in MEMBERS}
    lines = [line for document in DOCUMENTS for line in document.read_text().splitlines() if "pip install" in line]

    assert lines
    assert [line for line in lines if names & set(re.findall(r"letta-[a-z-]+", line))] == []


@pytest.fixture
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of its own that sees what others published, pip with it, and nothing of ours."""
    place = tmp_path_factory.mktemp("clean")
    others = place / "others"
    others.mkdir()
    (source,) = {Path(path) for path in sys.path if path.endswith("site-packages") and path.startswith(sys.prefix)}
    for entry in source.iterdir():
        if not entry.name.lstrip("_").startswith("letta") or entry.name.startswith("letta_client"):
            (others / entry.name).symlink_to(entry)
    venv.create(place / "venv")
    (site,) = (place / "venv").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{others}\n")
    return place / "venv" / "bin" / "python"


def run(*command: str | Path, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=where, capture_output=True, text=True, timeout=300, check=False)


def test_a_service_installs_from_another_directory_and_starts(python: Path, tmp_path: Path):
    done = run(python, "-m", "pip", "install", *FLAGS, ROOT / "services" / "agent", where=tmp_path)
    assert done.returncode == 0, done.stderr

    started = run("env", "LETTA_DATABASE_URL=nonsense", python, "-m", "letta_agent", where=tmp_path)
    assert "database_url" in started.stderr, started.stderr
    found = run(python, "-c", "import letta_agent; print(letta_agent.__file__)", where=tmp_path)
    assert found.stdout.startswith(str(python.parent.parent)), found


CALL = """
import asyncio, importlib.util
from letta_sandbox.calls import Env, SandboxCall
from letta_sandbox.local.provider import LocalOptions, LocalProvider

async def main():
    provider = LocalProvider(LocalOptions(allow_unsandboxed=True))
    await provider.start()
    try:
        return await provider.run(SandboxCall("def add(a, b):\\n    return a + b\\n", "add", '{"a": 1, "b": 2}'), Env())
    finally:
        await provider.close()

result = asyncio.run(main())
found = [name for name in ("letta_tools", "letta_rpc", "letta_postgres") if importlib.util.find_spec(name)]
print(result.status.value, result.result, found)
"""


def test_the_sandbox_installs_alone_and_runs_a_call(python: Path, tmp_path: Path):
    done = run(python, "-m", "pip", "install", *FLAGS, ROOT / "libs" / "sandbox", where=tmp_path)
    assert done.returncode == 0, done.stderr

    called = run(python, "-c", CALL, where=tmp_path)
    assert called.stdout == "SUCCESS 3 []\n", called
