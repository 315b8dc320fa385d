"""The glossary, the map of the code and the walk of a message name things that exist."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "explanation" / "glossary.md"
ARCHITECTURE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
QUOTED = re.compile(r"`([^`]+)`")
ADVICE = "renew the walk with `python -m benchmarks.walk --write`"


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables of a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    marks = [number for number, line in enumerate(lines) if line.startswith("|---")]
    heads = {number - back for number in marks for back in (0, 1)}
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for number, line in enumerate(lines)
        if number not in heads
    ]


def section(title: str) -> str:
    return re.split(r"\n##+ ", ARCHITECTURE.partition(f"# {title}\n")[2])[0]


@cache
def tracked() -> frozenset[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return frozenset(name for name in listed.splitlines() if (ROOT / name).is_file())


@cache
def contracts() -> frozenset[str]:
    """Return the full names of the messages, enums and services of the contracts."""
    names = {"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.Struct"}
    for path in (ROOT / "proto").rglob("*.proto"):
        text = path.read_text()
        (package,) = re.findall(r"^package ([\w.]+);", text, re.MULTILINE)
        names |= {f"{package}.{name}" for name in re.findall(r"^(?:message|enum|service) (\w+)", text, re.MULTILINE)}
    return frozenset(names)


def module(dotted: str) -> Path | None:
    """Return the file of a module of ours."""
    place = dotted.replace(".", "/")
    endings = (f"/src/{place}.py", f"/src/{place}/__init__.py")
    return next((ROOT / name for name in sorted(tracked()) if name.endswith(endings)), None)


def exists(name: str) -> bool:
    """Say whether a name is one of the contracts, a module or class of ours, a table, or a file or folder."""
    if name in contracts() or name in tracked() or module(name) is not None:
        return True
    if "/" in name:
        return (ROOT / name).is_dir()
    if name.endswith((".py", ".sql", ".importlinter")):
        return any(each.rpartition("/")[2] == name for each in tracked())
    parent, _, last = name.rpartition(".")
    file = module(parent)
    if file is not None:
        return any(
            isinstance(node, ast.ClassDef) and node.name == last for node in ast.walk(ast.parse(file.read_text()))
        )
    tables = module(f"letta_{parent}.store.tables")
    return tables is not None and f'"{last}"' in tables.read_text()


@pytest.mark.parametrize("term", rows(GLOSSARY.read_text()), ids=lambda row: row[0])
def test_what_a_term_means_is_where_the_glossary_says(term):
    _, _, where = term
    names = QUOTED.findall(where)

    assert names
    assert [name for name in names if not exists(name)] == []


def test_each_term_is_told_once():
    terms = [row[0] for row in rows(GLOSSARY.read_text())]

    assert len(terms) > 50
    assert len(terms) == len(set(terms))


@pytest.mark.parametrize("place", rows(section("Where things are")), ids=lambda row: row[0])
def test_what_one_looks_for_is_where_the_map_says(place):
    _, where = place
    names = QUOTED.findall(where)

    assert names
    assert [name for name in names if not exists(name)] == []


@pytest.mark.parametrize("row", rows(section("The walk, counted")), ids=lambda row: row[0])
def test_each_file_and_shape_of_the_walk_exists(row):
    package, files, shapes = (QUOTED.findall(cell) for cell in row)
    root = module(package[0])
    wrong = [file for file in files if root is None or not (root.parent / file).is_file()]
    wrong += [shape for shape in shapes if not (exists(shape) if root is None else exists(f"{package[0]}.{shape}"))]

    assert wrong == [], ADVICE


def test_the_figures_of_the_walk_are_those_of_its_table():
    told = rows(section("The walk, counted"))
    files, shapes = (sum(len(QUOTED.findall(row[column])) for row in told) for column in (1, 2))

    assert f"{files} files and {shapes} shapes." in section("The walk, counted")


@pytest.mark.parametrize(
    "name", ["letta.agent.v1.Nothing", "letta_agent.domain.nothing", "letta_common.actor.Nobody", "agent.nothings"]
)
def test_a_name_of_nothing_is_noticed(name):
    assert not exists(name)


def test_the_drawing_has_the_rooms_that_there_are():
    rooms = {
        path.name
        for path in (ROOT / "services/agent/src/letta_agent/domain").iterdir()
        if (path / "__init__.py").exists()
    }
    libraries = {path.name for path in (ROOT / "libs").iterdir() if (path / "pyproject.toml").exists()}
    words = set(re.findall(r"\w+", section("Rooms and floors")))

    assert rooms | libraries <= words
