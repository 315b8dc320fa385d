"""Folders and files through the unmodified TypeScript SDK."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import PATIENCE
from tests.servers import RunningServer
from tests.support.typescript import Refused, TypeScriptClient, typescript_client

pytestmark = pytest.mark.varies
READING = {"open_files", "grep_files", "semantic_search_files"}
NOWHERE = "source-00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def typescript(server: RunningServer) -> Iterator[TypeScriptClient]:
    with typescript_client(server.http_url) as made:
        yield made


@pytest.fixture
def folder(typescript: TypeScriptClient) -> Iterator[Any]:
    made = typescript.call("folders.create", {"name": "handbook", "description": "How we work."})
    yield made
    typescript.call("folders.delete", made["id"])


@pytest.fixture
def agent(typescript: TypeScriptClient) -> Iterator[Any]:
    made = typescript.call("agents.create", {"model": "builtin/rules", "memory_blocks": []})
    yield made
    typescript.call("agents.delete", made["id"])


def put(typescript: TypeScriptClient, folder: Any, called: str, **more: Any) -> Any:
    """Upload a file and wait until it is read; return it."""
    file = {"$file": called, "text": "Be kind.\nBe brief.\n", "type": "text/markdown"}
    sent = typescript.call("folders.files.upload", folder["id"], {"file": file, **more})
    deadline = time.monotonic() + PATIENCE
    while True:
        wanted = {"folder_id": folder["id"], "include_content": True}
        found = typescript.call("folders.files.retrieve", sent["id"], wanted)
        if found["processing_status"] in ("embedding", "completed"):
            return found
        assert found["processing_status"] in ("pending", "parsing"), found
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_folder_lives_its_life(typescript: TypeScriptClient) -> None:
    made = typescript.call("folders.create", {"name": "papers"})
    assert typescript.call("folders.retrieve", made["id"]) == made
    changed = typescript.call("folders.update", made["id"], {"instructions": "Cite them."})
    assert (changed["name"], changed["instructions"]) == ("papers", "Cite them.")
    assert [each["id"] for each in typescript.call("folders.list", {"name": "papers"})] == [made["id"]]
    assert typescript.call("folders.agents.list", made["id"]) == []
    with pytest.raises(Refused) as caught:
        typescript.call("folders.create", {"name": "papers"})
    assert (caught.value.name, caught.value.status) == ("ConflictError", 409)
    typescript.call("folders.delete", made["id"])
    with pytest.raises(Refused) as caught:
        typescript.call("folders.retrieve", made["id"])
    assert (caught.value.name, caught.value.status) == ("NotFoundError", 404)


def test_files_are_uploaded_listed_read_and_deleted(typescript: TypeScriptClient, folder: Any) -> None:
    one = put(typescript, folder, "rules.md")
    assert (one["file_name"], one["file_type"], one["file_size"]) == ("rules.md", "text/markdown", 19)
    assert one["content"] == "Be kind.\nBe brief.\n"
    two = put(typescript, folder, "rules.md", duplicate_handling="suffix")
    other = put(typescript, folder, "rules.md", name="other.md")
    assert (two["file_name"], other["file_name"], other["original_file_name"]) == (
        "rules_(1).md",
        "other.md",
        "rules.md",
    )
    listed = typescript.call("folders.files.list", folder["id"], {"order": "asc"})
    assert [each["id"] for each in listed] == [one["id"], two["id"], other["id"]]
    again = typescript.call(
        "folders.files.upload",
        folder["id"],
        {"file": {"$file": "rules.md", "text": "New."}, "duplicate_handling": "skip"},
    )
    assert again["id"] == one["id"]
    with pytest.raises(Refused) as caught:
        put(typescript, folder, "rules.md", duplicate_handling="error")
    assert caught.value.name == "ConflictError"
    [passage, *_] = typescript.call("get", f"/v1/folders/{folder['id']}/passages")
    assert (passage["text"], passage["source_id"]) == ("Be kind.\nBe brief.", folder["id"])
    typescript.call("folders.files.delete", one["id"], {"folder_id": folder["id"]})
    with pytest.raises(Refused) as caught:
        typescript.call("folders.files.retrieve", one["id"], {"folder_id": folder["id"]})
    assert caught.value.name == "NotFoundError"


def test_an_agent_is_given_folders_and_opens_files(typescript: TypeScriptClient, folder: Any, agent: Any) -> None:
    ids = [put(typescript, folder, name)["id"] for name in ("a.md", "b.md")]
    typescript.call("agents.update", agent["id"], {"max_files_open": 1})
    typescript.call("agents.folders.attach", folder["id"], {"agent_id": agent["id"]})
    assert [each["id"] for each in typescript.call("agents.folders.list", agent["id"])] == [folder["id"]]
    assert typescript.call("folders.agents.list", folder["id"]) == [agent["id"]]
    assert {tool["name"] for tool in typescript.call("agents.tools.list", agent["id"], {"limit": 50})} >= READING
    files = typescript.call("agents.files.list", agent["id"], {"order": "asc"})
    assert [(file["file_id"], file["is_open"]) for file in files] == [(ids[0], True), (ids[1], False)]
    assert files[0]["visible_content"] == "[Viewing file start (out of 2 lines)]\n1: Be kind.\n2: Be brief."
    assert typescript.call("agents.files.open", ids[1], {"agent_id": agent["id"]}) == ["handbook/a.md"]
    typescript.call("agents.files.close", ids[1], {"agent_id": agent["id"]})
    assert typescript.call("agents.files.list", agent["id"], {"is_open": True}) == []
    typescript.call("agents.files.open", ids[0], {"agent_id": agent["id"]})
    assert typescript.call("agents.files.closeAll", agent["id"]) == ["handbook/a.md"]
    typescript.call("agents.folders.detach", folder["id"], {"agent_id": agent["id"]})
    assert typescript.call("agents.folders.list", agent["id"]) == []
    assert not READING & {tool["name"] for tool in typescript.call("agents.tools.list", agent["id"], {"limit": 50})}


def test_what_is_refused(typescript: TypeScriptClient, folder: Any, agent: Any) -> None:
    text = {"$file": "a.md", "text": "x"}
    for path, *args in (
        ("folders.files.upload", NOWHERE, {"file": text}),
        ("agents.folders.attach", NOWHERE, {"agent_id": agent["id"]}),
        ("agents.files.open", "file-00000000-0000-4000-8000-000000000000", {"agent_id": agent["id"]}),
    ):
        with pytest.raises(Refused) as caught:
            typescript.call(path, *args)
        assert caught.value.name == "NotFoundError"
    with pytest.raises(Refused) as caught:
        typescript.call("folders.files.upload", folder["id"], {"file": text, "name": "../a.md"})
    assert (caught.value.name, caught.value.status) == ("UnprocessableEntityError", 422)
