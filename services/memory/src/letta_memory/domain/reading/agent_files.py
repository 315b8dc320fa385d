"""Files as agents see them: which are open, and what is found in them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import Protocol

from letta.memory.v1 import agent_file_service_pb2 as pb
from letta.memory.v1.agent_file_pb2 import AgentFile, FileMatches, FileSearchResult, GrepEnd, GrepMatch
from letta.memory.v1.agent_file_service_pb2 import FolderLoss
from letta.memory.v1.folder_pb2 import Folder
from letta.memory.v1.passage_service_pb2 import SearchPassagesRequest
from letta_common.actor import Actor
from letta_common.fair_slots import FairSlots
from letta_common.values.paging import Page
from letta_memory.domain.passages import Passages
from letta_memory.domain.reading.greps import Grep
from letta_rpc.page_bytes import MAX_PAGE_BYTES

_SHOWN = 400  # characters of a line that a search shows
_CUT = " [cut]"
_PAGE_BYTES = MAX_PAGE_BYTES // 2  # of matches, since the names of files come with them


@dataclass(frozen=True, slots=True)
class FileLimits:
    """How many files an agent may have open, and how many characters it sees of each."""

    max_open: int
    view_chars: int


@dataclass(frozen=True, slots=True)
class FileText:
    """A file whose text an agent can read."""

    id: str
    name: str
    size: int
    """Bytes of the text."""


@dataclass(frozen=True, slots=True)
class GrepLimits:
    """How far one search through the texts of an agent goes."""

    file_bytes: int = 50_000_000
    total_bytes: int = 200_000_000
    matches: int = 1_000
    seconds: float = 30.0


class FolderLossStore(Protocol):
    """Which agents lost their last folder, until it is forgotten."""

    async def list_losses(self, organization_id: str, after: int) -> list[FolderLoss]:
        """Return some of them after a position, in order; without an organization those of all."""
        ...

    async def forget_losses(self, actor: Actor, positions: Sequence[int]) -> None:
        """Forget some of the actor's organization."""
        ...


class AgentFileStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization, and raises AgentNotFound."""

    async def attach_folder(self, actor: Actor, agent_id: str, folder_id: str, limits: FileLimits) -> None:
        """Give a folder to an agent, and open its files where there is room. Raises FolderNotFound."""
        ...

    async def detach_folder(self, actor: Actor, agent_id: str, folder_id: str) -> None:
        """Take a folder from an agent. Raises FolderNotFound."""
        ...

    async def set_limits(self, actor: Actor, agent_id: str, limits: FileLimits) -> None:
        """Set the limits of an agent, and close files that are open above them."""
        ...

    async def list_folders(self, actor: Actor, agent_id: str, page: Page) -> list[Folder]:
        """Return a page of an agent's folders. Raises CursorNotFound."""
        ...

    async def list_files(self, actor: Actor, agent_id: str, page: Page, *, is_open: bool | None) -> list[AgentFile]:
        """Return a page of an agent's files. Raises CursorNotFound."""
        ...

    async def open_file(self, actor: Actor, agent_id: str, file_id: str, now: datetime) -> list[str]:
        """Open a file from its start; return the names of those closed for it. Raises FileNotFound."""
        ...

    async def open_files(self, actor: Actor, request: pb.OpenFilesRequest, now: datetime) -> pb.OpenFilesResponse:
        """Open files for a run, all or none, once for each key.

        Raises:
            ConversationNotFound, FileNotFound: the agent has no such conversation or file.
            Fenced: the conversation has a newer owner.
            InvalidArgument: a file has no such line, or more are asked for than may be open.
            IdempotencyConflict: the key was used for other files.
        """
        ...

    async def close_file(self, actor: Actor, agent_id: str, file_id: str) -> None:
        """Close a file. Raises FileNotFound."""
        ...

    async def close_files(self, actor: Actor, agent_id: str) -> list[str]:
        """Close all files; return their names."""
        ...

    async def list_texts(self, actor: Actor, agent_id: str) -> list[FileText]:
        """Return the files whose text an agent can read, by name."""
        ...

    def stream_text(self, actor: Actor, file_id: str) -> AsyncIterator[bytes]:
        """Yield the text of a file in pieces that end with a line, the last one excepted."""
        ...

    async def list_lines(self, actor: Actor, file_id: str, first: int, count: int) -> list[str]:
        """Return so many lines of a file from one on, counted from 0; fewer of them where they are long."""
        ...

    async def list_folder_ids(self, actor: Actor, agent_id: str) -> list[str]:
        """Return the folders of an agent."""
        ...

    async def list_places(self, actor: Actor, passage_ids: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Return the file of each of these chunks and its place in it, by the chunk's id."""
        ...


def attachment_id(file_id: str) -> str:
    """Return the id of a file as an agent has it."""
    return f"file_agent-{file_id.removeprefix('file-')}"


def file_cursor(cursor: str) -> str:
    """Return the id of the file that a cursor in a list of an agent's files names."""
    return cursor.replace("file_agent-", "file-", 1)


@dataclass(slots=True)
class _Found:
    """What a search has found so far."""

    matches: list[tuple[FileText, int]] = field(default_factory=list)
    """Files and the numbers of lines in them, from 0."""
    searched: int = 0
    skipped: list[str] = field(default_factory=list)
    end: GrepEnd.ValueType = GrepEnd.GREP_END_UNSPECIFIED


class AgentFiles:
    """Searches through the files of agents."""

    def __init__(self, store: AgentFileStore, passages: Passages, slots: FairSlots, limits: GrepLimits) -> None:
        self._store = store
        self._passages = passages
        self._slots = slots
        self._limits = limits

    async def grep(self, actor: Actor, request: pb.GrepFilesRequest) -> pb.GrepFilesResponse:
        """Return the lines that match.

        Raises:
            AgentNotFound: the organization has no such agent.
            InvalidArgument: the pattern cannot be searched for.
            RateLimited: too many searches go on.
        """
        grep = Grep(request.pattern)
        texts = await self._store.list_texts(actor, request.agent_id)
        if request.include:
            wanted = request.include.lower()
            texts = [text for text in texts if fnmatchcase(text.name.lower(), wanted)]
        async with self._slots.hold(actor.organization_id):
            found = await self._search(actor, grep, texts)
        counts = Counter(text.name for text, _ in found.matches)
        return pb.GrepFilesResponse(
            matches=await self._page(actor, request, found.matches),
            match_count=len(found.matches),
            files=[FileMatches(file_name=name, match_count=count) for name, count in counts.items()],
            searched_file_count=found.searched,
            end=found.end,
            skipped_file_names=found.skipped,
        )

    async def _page(
        self, actor: Actor, request: pb.GrepFilesRequest, found: Sequence[tuple[FileText, int]]
    ) -> list[GrepMatch]:
        """Return the matches that are asked for, fewer where they would be too large together."""
        page: list[GrepMatch] = []
        size = 0
        for text, line in found[request.offset : request.offset + request.limit]:
            match = await self._match(actor, text, line, request.context_lines)
            size += match.ByteSize()
            if page and size > _PAGE_BYTES:
                break
            page.append(match)
        return page

    async def _match(self, actor: Actor, text: FileText, line: int, around: int) -> GrepMatch:
        first = max(0, line - around)
        lines = await self._store.list_lines(actor, text.id, first, line - first + 1 + around)
        return GrepMatch(
            file_name=text.name, line_number=line + 1, first_line_number=first + 1, lines=map(_shown, lines)
        )

    async def search(self, actor: Actor, request: pb.SearchFilesRequest) -> list[FileSearchResult]:
        """Return the chunks that fit best. Raises AgentNotFound."""
        folder_ids = await self._store.list_folder_ids(actor, request.agent_id)
        if not folder_ids:
            return []
        query = SearchPassagesRequest(query=request.query, limit=request.limit, folder_ids=folder_ids)
        found = await self._passages.search(actor, query, embeddings=False)
        places = await self._store.list_places(actor, [each.passage.id for each in found])
        return [
            FileSearchResult(
                file_name=places[each.passage.id][0],
                passage_number=places[each.passage.id][1] + 1,
                score=each.score,
                text=each.passage.text,
            )
            for each in found
            if each.passage.id in places
        ]

    async def _search(self, actor: Actor, grep: Grep, texts: Sequence[FileText]) -> _Found:
        found, limits = _Found(), self._limits
        left, deadline = limits.total_bytes, time.monotonic() + limits.seconds
        for text in texts:
            if text.size > limits.file_bytes:
                found.skipped.append(text.name)
                continue
            left -= text.size
            if left < 0:
                found.end = GrepEnd.GREP_END_SIZE
                break
            found.searched += 1
            await self._search_text(actor, grep, text, found, deadline)
            if len(found.matches) >= limits.matches:
                found.end = GrepEnd.GREP_END_MATCHES
            if found.end:
                break
        return found

    async def _search_text(self, actor: Actor, grep: Grep, text: FileText, found: _Found, deadline: float) -> None:
        before = 0
        async for piece in self._store.stream_text(actor, text.id):
            most = self._limits.matches - len(found.matches)
            numbers, whole = await asyncio.to_thread(_numbers, grep, piece, deadline, most)
            found.matches += [(text, before + number) for number in numbers]
            if not whole:
                found.end = GrepEnd.GREP_END_TIME
            if not whole or len(numbers) == most:
                return
            before += piece.count(b"\n")


def _numbers(grep: Grep, piece: bytes, deadline: float, most: int) -> tuple[list[int], bool]:
    """Return the lines that match, at most so many, and whether there was time to look for them."""
    numbers: list[int] = []
    try:
        for number in islice(grep.lines(piece, deadline), most):
            numbers.append(number)  # noqa: PERF402 what was found before the time was over counts
    except TimeoutError:
        return numbers, False
    return numbers, True


def _shown(line: str) -> str:
    return line if len(line) <= _SHOWN else line[:_SHOWN] + _CUT
