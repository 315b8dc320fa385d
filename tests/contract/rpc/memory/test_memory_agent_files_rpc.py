"""AgentFileService: which folders an agent has, which files it has open, and what it finds in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from letta.memory.v1 import agent_file_service_pb2 as pb
from letta.memory.v1 import file_service_pb2, folder_pb2, folder_service_pb2
from letta.memory.v1.agent_file_pb2 import FileToOpen, GrepEnd, OpenedFile
from letta_common.errors import (
    AgentNotFound,
    ConversationNotFound,
    CursorNotFound,
    Fenced,
    FileNotFound,
    FolderNotFound,
    IdempotencyConflict,
    InvalidArgument,
    ValidationFailed,
)
from letta_common.values.ids import new_id
from tests.support.files import put_file

FORTY = "Orion launches in May.\nThe budget is 5.\n" * 20


class Files:
    """An agent with a folder, and what tests do with its files."""

    def __init__(self, memory: Any, dsn: str, agent_id: str, folder: folder_pb2.Folder) -> None:
        self.memory, self.dsn = memory, dsn
        self.agent_id, self.folder = agent_id, folder

    def put(self, name: str, text: str = FORTY, **more: Any) -> str:
        return put_file(self.dsn, self.folder.id, name, text, **more)

    def name(self, name: str) -> str:
        return f"{self.folder.name}/{name}"

    async def attach(self, *, most: int = 5, chars: int = 1_000, folder_id: str = "", agent_id: str = "") -> None:
        request = pb.AttachFolderRequest(
            agent_id=agent_id or self.agent_id,
            folder_id=folder_id or self.folder.id,
            max_files_open=most,
            view_char_limit=chars,
        )
        await self.memory.agent_files.AttachFolder(request, timeout=10)

    async def detach(self, folder_id: str = "") -> None:
        request = pb.DetachFolderRequest(agent_id=self.agent_id, folder_id=folder_id or self.folder.id)
        await self.memory.agent_files.DetachFolder(request, timeout=10)

    async def list(self, **more: Any) -> pb.ListAgentFilesResponse:
        request = pb.ListAgentFilesRequest(agent_id=self.agent_id, **more)
        answer: pb.ListAgentFilesResponse = await self.memory.agent_files.ListAgentFiles(request, timeout=10)
        return answer

    async def opened(self) -> list[str]:
        """Return the names of the open files, oldest first."""
        found = await self.list(is_open=True, order="SORT_ORDER_ASC")
        return [file.file_name.partition("/")[2] for file in found.files]

    async def open(self, *names: Any, key: str = "", fence: int = 1, **more: Any) -> pb.OpenFilesResponse:
        files = [FileToOpen(file_name=self.name(name)) if isinstance(name, str) else name for name in names]
        request = pb.OpenFilesRequest(
            **{"agent_id": self.agent_id, "conversation_id": self.agent_id, "fence": fence, "files": files, **more},
            idempotency_key=key or new_id("run"),
        )
        answer: pb.OpenFilesResponse = await self.memory.agent_files.OpenFiles(request, timeout=10)
        return answer

    async def grep(self, pattern: str, *, limit: int = 20, **more: Any) -> pb.GrepFilesResponse:
        request = pb.GrepFilesRequest(agent_id=self.agent_id, pattern=pattern, limit=limit, **more)
        answer: pb.GrepFilesResponse = await self.memory.agent_files.GrepFiles(request, timeout=40)
        return answer

    async def close_all(self) -> list[str]:
        request = pb.CloseAllFilesRequest(agent_id=self.agent_id)
        return list((await self.memory.agent_files.CloseAllFiles(request, timeout=10)).closed_file_names)


async def folder(memory: Any, **more: Any) -> folder_pb2.Folder:
    request = folder_service_pb2.CreateFolderRequest(name=f"docs-{uuid4()}", **more)
    made: folder_pb2.Folder = (await memory.folders.CreateFolder(request, timeout=10)).folder
    return made


@pytest.fixture
async def files(memory: Any, database_url: str) -> Files:
    return Files(memory, database_url, await memory.agent(), await folder(memory, description="d", instructions="i"))


async def test_a_folder_is_attached_once(files: Files) -> None:
    await files.attach()
    await files.attach()

    found = await files.memory.agent_files.ListAgentFolders(
        pb.ListAgentFoldersRequest(agent_id=files.agent_id), timeout=10
    )
    assert list(found.folders) == [files.folder]
    await files.detach()
    await files.detach()


async def test_files_are_opened_while_there_is_room(files: Files) -> None:
    for name in "abc":
        files.put(name)
    await files.attach(most=4)
    assert await files.opened() == ["a", "b", "c"]
    files.put("d")
    files.put("e")
    assert await files.opened() == ["a", "b", "c", "d"]
    assert [file.file_name for file in (await files.list(is_open=False)).files] == [files.name("e")]


async def test_a_file_that_is_not_read_yet_is_not_there(files: Files) -> None:
    await files.attach()
    file_id = files.put("a")
    assert (await files.list()).files[0].file_id == file_id
    await files.memory.files.DeleteFile(
        file_service_pb2.DeleteFileRequest(folder_id=files.folder.id, file_id=file_id), timeout=10
    )
    assert not (await files.list()).files
    with pytest.raises(FileNotFound):
        await files.open("a")


async def test_what_is_seen_has_lines_with_numbers(files: Files) -> None:
    file_id = files.put("notes.txt")
    await files.attach(chars=2_000)

    [file] = (await files.list()).files
    assert file.id == f"file_agent-{file_id.removeprefix('file-')}"
    assert (file.file_name, file.folder_name, file.is_open) == (files.name("notes.txt"), files.folder.name, True)
    assert file.visible_content.startswith("[Viewing file start (out of 40 lines)]\n1: Orion launches in May.\n2: The")
    assert file.visible_content.endswith("\n40: The budget is 5.")
    assert not file.HasField("start_line")
    assert not file.HasField("end_line")


async def test_lines_may_be_chosen(files: Files) -> None:
    files.put("a")
    await files.attach(chars=2_000)
    name = files.name("a")
    answer = await files.open(FileToOpen(file_name=name, offset=5, length=2))
    assert list(answer.opened) == [OpenedFile(file_name=name, start_line=6, end_line=7)]
    [file] = (await files.list()).files
    assert (
        file.visible_content
        == "[Viewing lines 6 to 7 (out of 40 lines)]\n6: The budget is 5.\n7: Orion launches in May."
    )
    assert (file.start_line, file.end_line) == (6, 7)
    answer = await files.open(FileToOpen(file_name=name, offset=38))
    assert list(answer.opened) == [OpenedFile(file_name=name, start_line=39)]
    assert (await files.list()).files[0].visible_content.startswith("[Viewing lines 39 to 40 (out of 40 lines)]\n39: ")
    with pytest.raises(InvalidArgument, match="40 lines"):
        await files.open(FileToOpen(file_name=name, offset=40))
    for none in (FileToOpen(file_name=name, offset=-1), FileToOpen(file_name=name, length=0)):
        with pytest.raises(ValidationFailed):
            await files.open(none)


async def test_a_view_reaches_over_the_parts_of_a_text(files: Files) -> None:
    lines = [f"line {number} of a long text" for number in range(1, 20_001)]
    files.put("long", "\n".join(lines))
    await files.attach(chars=100_000)
    for offset in (0, 1, 739, 9_999, 19_999):
        await files.open(FileToOpen(file_name=files.name("long"), offset=offset, length=2_000))
        seen = (await files.list()).files[0].visible_content.split("\n")
        last = min(offset + 2_000, 20_000)
        assert seen[0] == f"[Viewing lines {offset + 1} to {last} (out of 20000 lines)]"
        assert seen[1:] == [f"{number}: {lines[number - 1]}" for number in range(offset + 1, last + 1)]


async def test_a_view_is_cut_at_the_limit(files: Files) -> None:
    files.put("a")
    files.put("one line", "x" * 5_000)
    await files.attach(chars=300)
    for file in (await files.list()).files:
        assert 200 < len(file.visible_content) <= 300
        assert "[Cut after line" in file.visible_content


async def test_those_opened_longest_ago_make_room(files: Files) -> None:
    for name in "abcde":
        files.put(name)
    await files.attach(most=3)
    await files.open("a")
    answer = await files.open("d")
    assert list(answer.evicted_file_names) == [files.name("b")]
    assert await files.opened() == ["a", "c", "d"]
    answer = await files.open("e", "c", close_all_others=True)
    assert sorted(answer.closed_file_names) == [files.name("a"), files.name("d")]
    assert not answer.evicted_file_names
    assert await files.opened() == ["c", "e"]


async def test_no_more_are_opened_than_may_be(files: Files) -> None:
    for name in "abc":
        files.put(name)
    await files.attach(most=2)
    before = await files.opened()
    with pytest.raises(InvalidArgument, match="at most 2"):
        await files.open("a", "b", "c")
    with pytest.raises(FileNotFound, match="there is no file"):
        await files.open("c", "nothing")
    assert await files.opened() == before


async def test_a_lower_limit_closes_files(files: Files) -> None:
    for name in "abc":
        files.put(name)
    await files.attach(most=3)
    await files.open("a")
    request = pb.SetFileLimitsRequest(agent_id=files.agent_id, max_files_open=1, view_char_limit=100)
    await files.memory.agent_files.SetFileLimits(request, timeout=10)
    assert await files.opened() == ["a"]
    assert len((await files.list(is_open=True)).files[0].visible_content) <= 100


async def test_a_repeat_opens_nothing_anew(files: Files) -> None:
    for name in "abc":
        files.put(name)
    await files.attach(most=1)
    key = f"{new_id('run')}:0:0"
    first = await files.open("b", key=key)
    await files.open("c")
    again = await files.open("b", key=key)
    assert again.repeated_opening
    assert (again.opened, again.evicted_file_names) == (first.opened, first.evicted_file_names)
    assert await files.opened() == ["c"]
    with pytest.raises(IdempotencyConflict):
        await files.open("c", key=key)


async def test_an_owner_that_was_paused_opens_nothing(files: Files) -> None:
    files.put("a")
    await files.attach()
    await files.close_all()
    await files.memory.begin(files.agent_id, "hello", fence=7)
    with pytest.raises(Fenced):
        await files.open("a", fence=6)
    assert await files.opened() == []
    await files.open("a", fence=8)
    with pytest.raises(Fenced):
        await files.memory.begin(files.agent_id, "hello", fence=7)
    with pytest.raises(ConversationNotFound):
        await files.open("a", fence=8, conversation_id=new_id("conv"))


async def test_a_file_is_opened_and_closed_by_its_id(files: Files) -> None:
    a, b = files.put("a"), files.put("b")
    await files.attach(most=1)
    calls, agent = files.memory.agent_files, files.agent_id
    answer = await calls.OpenFile(pb.OpenFileRequest(agent_id=agent, file_id=b), timeout=10)
    assert list(answer.closed_file_names) == [files.name("a")]
    answer = await calls.CloseFile(pb.CloseFileRequest(agent_id=agent, file_id=b), timeout=10)
    assert b in answer.message
    await calls.CloseFile(pb.CloseFileRequest(agent_id=agent, file_id=b), timeout=10)
    assert await files.opened() == []
    await calls.OpenFile(pb.OpenFileRequest(agent_id=agent, file_id=a), timeout=10)
    assert await files.close_all() == [files.name("a")]
    assert await files.close_all() == []
    for call, request in ((calls.OpenFile, pb.OpenFileRequest), (calls.CloseFile, pb.CloseFileRequest)):
        with pytest.raises(FileNotFound):
            await call(request(agent_id=agent, file_id=new_id("file")), timeout=10)


async def test_files_page_by_their_own_ids_and_those_of_their_files(files: Files) -> None:
    ids = [files.put(name) for name in "abcde"]
    await files.attach(most=1)
    first = await files.list(limit=2)
    assert [file.file_id for file in first.files] == ids[:2:-1]
    assert first.has_more
    assert first.next_cursor == first.files[-1].id
    second = await files.list(limit=2, after=first.next_cursor)
    assert [file.file_id for file in second.files] == ids[2:0:-1]
    last = await files.list(limit=2, cursor=second.files[-1].file_id)
    assert [file.file_id for file in last.files] == ids[:1]
    assert not last.has_more
    back = await files.list(limit=2, before=last.files[0].id)
    assert [file.file_id for file in back.files] == ids[2:0:-1]
    assert back.has_more
    with pytest.raises(CursorNotFound):
        await files.list(after=f"file-{uuid4()}")


async def test_two_agents_have_one_folder_each_in_its_own_way(files: Files) -> None:
    files.put("a")
    other = Files(files.memory, files.dsn, await files.memory.agent(), files.folder)
    await files.attach()
    await other.attach()
    await files.close_all()
    assert (await files.opened(), await other.opened()) == ([], ["a"])
    await files.detach()
    assert await other.opened() == ["a"]


async def test_what_is_of_others_is_not_there(files: Files) -> None:
    file_id = files.put("a")
    await files.attach()
    with files.memory.actor(files.memory.BOB):
        bobs = Files(files.memory, files.dsn, await files.memory.agent(), files.folder)
        with pytest.raises(FolderNotFound):
            await bobs.attach()
        with pytest.raises(FolderNotFound):
            await bobs.detach()
        with pytest.raises(FileNotFound):
            await files.memory.agent_files.OpenFile(
                pb.OpenFileRequest(agent_id=bobs.agent_id, file_id=file_id), timeout=10
            )
        with pytest.raises(FileNotFound):
            await bobs.open("a")
        assert not (await bobs.grep("Orion")).matches
        for asked in (files.list(), files.close_all(), files.grep("x"), files.attach(), files.open("a")):
            with pytest.raises((AgentNotFound, FolderNotFound)):
                await asked


async def test_what_is_not_attached_is_not_there(files: Files) -> None:
    file_id = files.put("a")
    with pytest.raises(FileNotFound):
        await files.memory.agent_files.OpenFile(
            pb.OpenFileRequest(agent_id=files.agent_id, file_id=file_id), timeout=10
        )
    with pytest.raises(FolderNotFound):
        await files.attach(folder_id=new_id("source"))
    with pytest.raises(AgentNotFound):
        await files.attach(agent_id=new_id("agent"))
    assert not (await files.list()).files


async def test_a_folder_that_is_deleted_while_its_files_are_open(files: Files) -> None:
    files.put("a")
    await files.attach()
    await files.memory.folders.DeleteFolder(
        folder_service_pb2.DeleteFolderRequest(folder_id=files.folder.id), timeout=10
    )
    assert await files.opened() == []
    _, begun = await files.memory.begin(files.agent_id, "hello")
    assert (begun.directories_version, begun.HasField("directories")) == (0, False)


async def test_lines_are_found_in_any_case(files: Files) -> None:
    files.put("a.txt")
    files.put("b.md", "one\nORION rises\n\nlast")
    await files.attach()
    found = await files.grep("orion", context_lines=1)
    assert found.match_count == 21
    assert [(each.file_name, each.match_count) for each in found.files] == [
        (files.name("a.txt"), 20),
        (files.name("b.md"), 1),
    ]
    assert len(found.matches) == 20
    first = found.matches[0]
    assert (first.line_number, first.first_line_number) == (1, 1)
    assert list(first.lines) == ["Orion launches in May.", "The budget is 5."]
    [last] = (await files.grep("orion", context_lines=1, offset=20)).matches
    assert (last.file_name, last.line_number, last.first_line_number) == (files.name("b.md"), 2, 1)
    assert list(last.lines) == ["one", "ORION rises", ""]
    assert (await files.grep("orion", include="*.MD")).match_count == 1
    assert (await files.grep("orion", include="nothing*")).searched_file_count == 0
    assert [each.line_number for each in (await files.grep("^$")).matches] == [3]


async def test_lines_are_found_over_the_parts_of_a_text(files: Files) -> None:
    lines = [f"line {number}" for number in range(1, 200_001)]
    lines[123_456] = "needle"
    files.put("long", "\n".join(lines))
    await files.attach()
    [match] = (await files.grep("^NEEDLE$", context_lines=2)).matches
    assert match.line_number == 123_457
    assert list(match.lines) == ["line 123455", "line 123456", "needle", "line 123458", "line 123459"]
    assert (await files.grep("line")).end == GrepEnd.GREP_END_MATCHES


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?<=a)b", "(a{1000}){1000}", "x" * 1_001, r"(?:\pL?){20}"])
async def test_what_cannot_be_searched_for_is_refused(files: Files, pattern: str) -> None:
    await files.attach()
    with pytest.raises(InvalidArgument, match="pattern"):
        await files.grep(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*c", "(a*)*b", "([a-z]+)*9", "(a?){30}a{30}b"])
async def test_a_pattern_that_blows_up_elsewhere_holds_up_nobody(files: Files, pattern: str) -> None:
    files.put("a", "a" * 100_000 + "!")
    await files.attach()
    other = asyncio.create_task(files.list())
    assert (await files.grep(pattern)).end == GrepEnd.GREP_END_UNSPECIFIED
    await other


async def test_chunks_are_found_by_their_words(files: Files) -> None:
    files.put("a", "Orion launches in May.\nThe budget is 5.\nNobody knows.", chunks=3)
    files.put("b", "Tea is green.", chunks=1)
    await files.attach()

    async def search(query: str, **more: Any) -> list[tuple[str, int, str]]:
        request = pb.SearchFilesRequest(agent_id=files.agent_id, query=query, **{"limit": 5, **more})
        found = (await files.memory.agent_files.SearchFiles(request, timeout=10)).results
        return [(each.file_name, each.passage_number, each.text) for each in found]

    assert (await search("budget"))[0] == (files.name("a"), 2, "The budget is 5.")
    assert (await search("green tea"))[0] == (files.name("b"), 1, "Tea is green.")
    with pytest.raises(ValidationFailed):
        await search("tea", limit=51)
    await files.detach()
    assert await search("budget") == []


async def test_a_context_has_the_directories_that_the_caller_has_not(files: Files) -> None:
    files.put("a")
    _, begun = await files.memory.begin(files.agent_id, "hello")
    assert begun.directories_version == 0
    await files.attach(most=3)
    run, begun = await files.memory.begin(files.agent_id, "hello")
    [shown] = begun.directories.directories
    assert (shown.name, shown.description, shown.instructions) == (files.folder.name, "d", "i")
    assert [(file.name, file.view[:9]) for file in shown.files] == [(files.name("a"), "[Viewing ")]
    version = begun.directories_version
    assert version == begun.directories.version > 0
    done = await files.memory.commit(files.agent_id, run, "hi", known_directories_version=version)
    assert (done.directories_version, done.HasField("directories")) == (version, False)
    files.put("b")
    done = await files.memory.commit(files.agent_id, run, "hi", step=1, known_directories_version=version)
    assert [file.name for file in done.directories.directories[0].files] == [files.name("a"), files.name("b")]
    newer = done.directories_version
    assert newer > version
    await files.close_all()
    done = await files.memory.commit(files.agent_id, run, "hi", step=2, known_directories_version=newer)
    assert not any(file.HasField("view") for file in done.directories.directories[0].files)
    await files.detach()
    done = await files.memory.commit(files.agent_id, run, "hi", step=3, known_directories_version=newer)
    assert (done.directories_version, done.HasField("directories")) == (0, False)


async def test_many_files_are_not_all_told(files: Files) -> None:
    for number in range(130):
        files.put(f"{number:03}", "x")
    await files.attach(most=2)
    await files.open("128", "129")
    _, begun = await files.memory.begin(files.agent_id, "hello")
    [shown] = begun.directories.directories
    assert len(shown.files) == 102
    assert shown.unlisted_file_count == 28
    assert [file.name[-3:] for file in shown.files if file.HasField("view")] == ["128", "129"]


async def test_open_files_are_found_without_reading_all(files: Files) -> None:
    """Each file that is new in a folder asks how many each of its agents has open."""
    await files.attach(most=2)
    for number in range(200):
        files.put(f"{number:03}", "x")
    with psycopg.connect(files.dsn) as conn:
        # What other tests left would make folders look small, of which all files are soon read. It is taken back below.
        conn.execute("set local session_replication_role = replica")
        for table, column in (("files", "folder_id"), ("folders", "id")):
            of_agent = "(select folder_id from memory.folder_agents where agent_id = %s)"
            conn.execute(f"delete from memory.{table} where {column} not in {of_agent}", (files.agent_id,))
        conn.execute("analyze memory.files, memory.agent_files, memory.folder_agents, memory.folders")
        query = "explain (analyze, format json) select from memory.files_of('org-a', %s) o where o.is_open"
        [[[plan]]] = conn.execute(query, (files.agent_id,)).fetchall()
        conn.rollback()
    [read] = [node for node in nodes(plan["Plan"]) if node.get("Relation Name") == "files"]
    assert (read["Actual Rows"] + read.get("Rows Removed by Filter", 0)) * read["Actual Loops"] < 10


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
