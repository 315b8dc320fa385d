"""Functions of the database: one file each with a header, named numbers that are true, none in migrations."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from letta.agent.v1 import run_pb2, step_pb2
from letta.common.v1 import message_pb2, usage_pb2
from letta.jsonmap.v1 import annotations_pb2
from letta.memory.v1 import (
    archive_pb2,
    block_revision_pb2,
    file_pb2,
    file_service_pb2,
    memory_suggestion_pb2,
    message_service_pb2,
)
from letta.memory.v1.block_pb2 import Block
from letta_agent.domain.agents import agents
from letta_agent.domain.agents.records import Stage
from letta_memory.domain import blocks
from letta_memory.domain.contexts import Status

SERVICES = Path(__file__).parents[2] / "services"
FILES = sorted(SERVICES.glob("*/src/*/store/sql/functions/*.sql"))
ENUMS: dict[str, Any] = {
    "RunStatus": run_pb2.RunStatus,
    "StepStatus": step_pb2.StepStatus,
    "MessageRole": message_pb2.MessageRole,
    "BlockWrite": block_revision_pb2.BlockWrite,
    "MemorySuggestionKind": memory_suggestion_pb2.MemorySuggestionKind,
    "MemorySuggestionState": memory_suggestion_pb2.MemorySuggestionState,
    "DuplicateHandling": file_service_pb2.DuplicateHandling,
    "Deduplication": archive_pb2.Deduplication,
    "FileStatus": file_pb2.FileStatus,
    "SearchMode": message_service_pb2.SearchMode,
    "StopReason": usage_pb2.StopReason,
    "Stage": Stage,
    "Status": Status,
}
MARKED = re.compile(r"(\d+) /\* (\w+)\.([A-Z_]+) \*/")


def value(enum: str, name: str) -> int:
    found = ENUMS[enum]
    if isinstance(found, type) and issubclass(found, IntEnum):
        return int(found[name])
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum).upper()
    return int(found.Value(f"{prefix}_{name}"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_holds_the_function_of_its_name_under_a_header(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^create or replace function \w+\.(\w+)\(", text, re.M) == [path.stem]
    assert text.startswith("-- ")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_function_has_a_caller_in_its_service(path: Path) -> None:
    """A store calls it, or another function, or a trigger that stands beside it."""
    name = rf"\b{path.parents[2].parent.name.removeprefix('letta_').removesuffix('_gateway')}\.{path.stem}\b"
    store = path.parents[2]
    elsewhere = [file.read_text() for file in (*store.rglob("*.py"), *FILES) if file != path]
    trigger = re.search(rf"execute function {name}", path.read_text())
    assert trigger or any(re.search(name, text) for text in elsewhere), f"nothing calls {path.stem}: remove it"


def test_numbers_of_enums_are_true() -> None:
    marks = [(path.stem, *mark) for path in FILES for mark in MARKED.findall(path.read_text())]
    assert len(marks) > 20
    assert [mark for mark in marks if value(mark[2], mark[3]) != int(mark[1])] == []


def test_migrations_hold_no_functions() -> None:
    scripts = SERVICES.glob("*/src/*/migrations/versions/*.py")
    found = [path.name for path in scripts if re.search(r"create (or replace )?function", path.read_text(), re.I)]
    assert found == [], "the one text of a function is its file in store/sql/functions"


@pytest.mark.parametrize(
    "directory", sorted(SERVICES.glob("*/src/*/migrations/versions")), ids=lambda path: path.parts[-3]
)
def test_migrations_follow_each_other_by_their_numbers(directory: Path) -> None:
    previous = "None"
    for path in sorted(directory.glob("*[!_].py")):
        found = re.fullmatch(r"(\d{4})_\w+\.py", path.name)
        assert found, f"{path.name}: should be called NNNN_title.py"
        lines = path.read_text().splitlines()
        assert {f'revision = "{found[1]}"', f"down_revision = {previous}"} <= {*lines}, path.name
        previous = f'"{found[1]}"'
    assert previous != "None"


def test_blocks_have_one_limit_unless_told() -> None:
    """The contract says which; who fills it in before a block is stored has the same number."""
    options = Block.DESCRIPTOR.fields_by_name["limit"].GetOptions().Extensions[annotations_pb2.field]
    marks = [int(mark) for path in FILES for mark in re.findall(r"(\d+) /\* Block\.limit \*/", path.read_text())]
    assert [*marks, blocks.DEFAULT_LIMIT, agents.DEFAULT_LIMIT] == [int(options.default_json)] * 3


def test_messages_are_appended_by_one_statement() -> None:
    """The hot functions hold it in themselves, since a call costs more than the insert."""
    inserts = [re.findall(r"insert into memory\.messages \(.*?;", path.read_text(), re.S) for path in FILES]
    texts = [
        " ".join(re.sub(r"c\.next_seq(?: - n)?|p_first", "FIRST", text).split()) for found in inserts for text in found
    ]
    assert len(texts) == 3
    assert len(set(texts)) == 1
