"""What becomes of files of each kind, of equal names and of their metadata, through the unmodified letta-client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from letta_client import APIStatusError, ConflictError, Letta, NotFoundError
from letta_client.types import AgentState, Folder
from tests.compat.files.conftest import Put
from tests.support.documents import book, pdf, slides, word

pytestmark = pytest.mark.varies
OFFICE = "application/vnd.openxmlformats-officedocument"
MAIL = "From: ann@example.org\nTo: bob@example.org\nSubject: Tides\n\nHigh at six.\n"
KINDS = [
    ("plain.txt", "High at six.", "text/plain", "High at six."),
    ("notes.md", "# Tides\n\nHigh at six.\n", "text/markdown", "# Tides"),
    ("facts.json", '{"tide": {"high": 6}}', "application/json", '"tide"'),
    ("lines.jsonl", '{"tide": 1}\n{"tide": 2}\n', "application/jsonl", '{"tide": 2}'),
    ("table.csv", "day,hour\nMonday,6\n", "text/csv", "Monday"),
    ("table.tsv", "day\thour\nMonday\t6\n", "text/tab-separated-values", "Monday"),
    ("page.html", "<html><body><h1>Tides</h1><script>x()</script></body></html>", "text/html", "# Tides"),
    ("feed.xml", "<?xml version='1.0'?><tide high='6'/>", "text/x-source", "<tide high='6'/>"),
    ("tide.py", "def tide() -> int:\n    return 6\n", "text/x-source", "def tide() -> int:"),
    ("tide.c", "int tide(void) { return 6; }\n", "text/x-source", "int tide(void)"),
    ("tide.js", "export const tide = () => 6;\n", "text/x-source", "export const tide"),
    ("tide.sql", "select 6 as tide;\n", "text/x-source", "select 6 as tide;"),
    ("tide.yaml", "tide:\n  high: 6\n", "text/x-source", "  high: 6"),
    ("mail.eml", MAIL, "message/rfc822", "High at six."),
    ("paper.pdf", pdf(["High at six."]), "application/pdf", "High at six."),
    ("report.docx", word(), f"{OFFICE}.wordprocessingml.document", "Ships come at noon."),
    ("talk.pptx", slides(), f"{OFFICE}.presentationml.presentation", "High at six."),
    ("costs.xlsx", book(), f"{OFFICE}.spreadsheetml.sheet", "item 2"),
]


@pytest.mark.parametrize(("name", "data", "kind", "text"), KINDS, ids=[kind[0] for kind in KINDS])
def test_a_file_of_each_kind_is_read_embedded_and_shown(
    client: Letta, agent: AgentState, folder: Folder, put: Put, name: str, data: Any, kind: str, text: str
) -> None:
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    file = put(folder, name, data, until="embedded")
    assert (file.file_name, file.file_type) == (f"{name}", kind)
    assert text in file.content
    assert file.total_chunks == file.chunks_embedded > 0
    [block] = client.agents.retrieve(agent.id, include=["agent.blocks"]).memory.file_blocks or []
    assert (block.label, block.is_open, block.source_id, block.file_id) == (
        f"library/{name}",
        True,
        folder.id,
        file.id,
    )
    assert text in block.value
    assert block.value.startswith("[Viewing file start (out of ")
    passages: Any = client.get(f"/v1/folders/{folder.id}/passages", cast_to=list[Any])
    assert {(each["file_id"], each["file_name"]) for each in passages} == {(file.id, f"library/{name}")}
    client.folders.files.delete(file.id, folder_id=folder.id)
    assert not client.agents.retrieve(agent.id, include=["agent.blocks"]).memory.file_blocks
    assert client.get(f"/v1/folders/{folder.id}/passages", cast_to=list[Any]) == []


def test_metadata_of_a_file(client: Letta, folder: Folder, put: Put) -> None:
    before = datetime.now(UTC)
    file = put(folder, "a.txt", "Ä tide.", name="b.txt")
    assert (file.file_name, file.original_file_name, file.file_size, file.source_id) == (
        "b.txt",
        "a.txt",
        8,
        folder.id,
    )
    made = datetime.fromisoformat(str(file.created_at))
    assert timedelta(0) <= made - before < timedelta(minutes=1)
    assert file.organization_id
    assert client.folders.files.retrieve(file.id, folder_id=folder.id).content is None
    [listed] = client.folders.files.list(folder.id, include_content=True)
    assert (listed.id, listed.content) == (file.id, "Ä tide.")


def test_metadata_of_a_folder(client: Letta) -> None:
    made = client.folders.create(name="told", metadata={"shelf": 3, "of": {"a": ["b"]}}, instructions="Cite.")
    try:
        assert client.folders.retrieve(made.id).metadata == {"shelf": 3, "of": {"a": ["b"]}}
        changed = client.folders.update(made.id, metadata={"shelf": 4})
        assert (changed.metadata, changed.instructions) == ({"shelf": 4}, "Cite.")
    finally:
        client.folders.delete(made.id)


def test_files_of_one_name_are_numbered(client: Letta, folder: Folder, put: Put) -> None:
    names = [put(folder, "a.txt", f"Text {number}.") for number in range(3)]
    assert [file.file_name for file in names] == ["a.txt", "a_(1).txt", "a_(2).txt"]
    assert {file.original_file_name for file in names} == {"a.txt"}
    client.folders.files.delete(names[1].id, folder_id=folder.id)
    assert put(folder, "a.txt", "Anew.").file_name == "a_(1).txt"


def test_a_file_takes_the_place_of_another(client: Letta, agent: AgentState, folder: Folder, put: Put) -> None:
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    old = put(folder, "a.txt", "Old.")
    new = put(folder, "a.txt", "New.", duplicate_handling="replace")
    assert [file.id for file in client.folders.files.list(folder.id)] == [new.id]
    [file] = client.agents.files.list(agent.id)
    assert (file.file_id, file.visible_content) == (new.id, "[Viewing file start (out of 1 lines)]\n1: New.")
    with pytest.raises(NotFoundError):
        client.folders.files.retrieve(old.id, folder_id=folder.id)


def test_a_file_that_is_there_is_left_alone(client: Letta, folder: Folder, put: Put) -> None:
    old = put(folder, "a.txt", "Old.")
    raw = client.folders.files.with_raw_response
    skipped = raw.upload(folder.id, file=("a.txt", b"New."), duplicate_handling="skip")
    assert skipped.parse().id == old.id
    with pytest.raises(ConflictError):
        client.folders.files.upload(folder.id, file=("a.txt", b"New."), duplicate_handling="error")
    assert client.folders.files.retrieve(old.id, folder_id=folder.id, include_content=True).content == "Old."


def test_equal_names_in_two_folders_are_two_files(client: Letta, agent: AgentState, folder: Folder, put: Put) -> None:
    other = client.folders.create(name="attic")
    try:
        put(folder, "a.txt", "Here.")
        put(other, "a.txt", "There.")
        for each in (folder, other):
            client.agents.folders.attach(each.id, agent_id=agent.id)
        shown = {file.file_name: file.visible_content for file in client.agents.files.list(agent.id)}
        assert shown == {
            "library/a.txt": "[Viewing file start (out of 1 lines)]\n1: Here.",
            "attic/a.txt": "[Viewing file start (out of 1 lines)]\n1: There.",
        }
    finally:
        client.folders.delete(other.id)


def test_a_folder_without_an_embedder_is_one(client: Letta, agent: AgentState, put: Put, call: Any) -> None:
    made = client.folders.create(name="unembedded")
    try:
        assert made.embedding_config is not None
        put(made, "a.txt", "Orion launches in May.")
        client.agents.folders.attach(made.id, agent_id=agent.id)
        assert "Orion launches in May." in call(agent, "semantic_search_files", '{"query": "Orion"}')
    finally:
        client.folders.delete(made.id)
    with pytest.raises(APIStatusError) as caught:
        client.folders.create(name="strange", embedding="nobody/knows")
    assert caught.value.status_code == 404


def test_what_is_no_document_fails_and_says_why(client: Letta, folder: Folder, put: Put) -> None:
    broken = put(folder, "broken.pdf", b"%PDF-1.7\nnothing", until="failed")
    assert broken.error_message
    assert broken.content is None


def test_what_has_no_text_is_refused_at_once(client: Letta, folder: Folder) -> None:
    with pytest.raises(APIStatusError) as caught:
        client.folders.files.upload(folder.id, file=("tide.png", b"\x89PNG", "image/png"))
    assert caught.value.status_code == 415
    assert client.folders.files.list(folder.id).items == []
