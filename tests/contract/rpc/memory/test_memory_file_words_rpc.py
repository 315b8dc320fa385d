"""Searches through files for words that are misspelt: of an agent, and of its folders."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from letta.memory.v1 import agent_file_service_pb2 as pb
from letta.memory.v1 import folder_service_pb2
from letta.memory.v1.passage_service_pb2 import SearchPassagesRequest
from tests.support.files import put_file

LINES = [f"Nobody knows what {number} is." for number in range(40)]
LINES[8], LINES[30] = "Orion launches in September.", "The budget is 5."


@pytest.mark.parametrize(("query", "place"), [("budgte", 31), ("laucnhes", 9), ("Septmeber", 9)])
async def test_chunks_of_files_are_found_by_words_that_are_misspelt(
    memory: Any, database_url: str, query: str, place: int
) -> None:
    """Whatever the vectors say: only the six chunks around the one that has the word can stand above it."""
    request = folder_service_pb2.CreateFolderRequest(name=f"docs-{uuid4()}")
    folder_id = (await memory.folders.CreateFolder(request, timeout=10)).folder.id
    put_file(database_url, folder_id, "a", "\n".join(LINES), chunks=40)
    agent_id = await memory.agent()
    attach = pb.AttachFolderRequest(agent_id=agent_id, folder_id=folder_id, max_files_open=5, view_char_limit=1_000)
    await memory.agent_files.AttachFolder(attach, timeout=10)

    asked = pb.SearchFilesRequest(agent_id=agent_id, query=query, limit=7)
    found = (await memory.agent_files.SearchFiles(asked, timeout=10)).results
    assert place in {each.passage_number for each in found}
    whole = SearchPassagesRequest(query=query, limit=50, folder_ids=[folder_id])
    hits = (await memory.passages.SearchPassages(whole, timeout=10)).results
    alike = {hit.passage.text: list(hit.ranks.approximate_words) for hit in hits if hit.ranks.approximate_words}
    assert alike == {LINES[place - 1]: [query.lower()]}
