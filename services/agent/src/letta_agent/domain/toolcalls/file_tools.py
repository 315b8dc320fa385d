"""The built-in tools that read the files of an agent's folders, and what a model reads of what they find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from letta.memory.v1 import agent_file_service_pb2 as pb
from letta.memory.v1.agent_file_pb2 import FileSearchResult, FileToOpen, GrepEnd, GrepMatch, OpenedFile
from letta_agent.domain.peers.memory import MemoryPeer
from letta_agent.domain.toolcalls.builtin_calls import BuiltinArgumentError, BuiltinCall

PAGE = 20
"""Matches of a search that are shown at once."""
_MOST_AROUND = 50  # lines before and after a match
_MOST_CHUNKS = 50
_CHUNK_LINES = 20  # of a chunk that are shown
_WHY = {
    GrepEnd.GREP_END_MATCHES: "The search ended with that many matches; narrow it with another pattern or `include`.",
    GrepEnd.GREP_END_SIZE: "The files are too large to search all of them at once; name fewer with `include`.",
    GrepEnd.GREP_END_TIME: "The search took too long; use a simpler pattern, or name fewer files with `include`.",
}


class FileTools:
    """Executes the tools that read files."""

    def __init__(self, memory: MemoryPeer) -> None:
        self._memory = memory

    async def open(self, call: BuiltinCall) -> str:
        """Open files for the agent."""
        request = pb.OpenFilesRequest(
            agent_id=call.run.agent_id,
            conversation_id=call.run.conversation_id,
            fence=call.run.fence,
            idempotency_key=call.key,
            files=_asked(call),
            close_all_others=call.flag("close_all_others"),
        )
        answer = await self._memory.open_files(request)
        said = [f"* Opened {_range(file)}" for file in answer.opened]
        if answer.closed_file_names:
            said.append(f"Closed {len(answer.closed_file_names)} other files: {', '.join(answer.closed_file_names)}")
        if answer.evicted_file_names:
            evicted = ", ".join(answer.evicted_file_names)
            said.append(f"Closed to make room, as used longest ago: {evicted}")
        return "\n".join(said)

    async def grep(self, call: BuiltinCall) -> str:
        """Find lines by a regular expression."""
        offset = max(0, call.number("offset", 0))
        request = pb.GrepFilesRequest(
            agent_id=call.run.agent_id,
            pattern=call.text("pattern"),
            include=call.text("include", call.arguments.get("include") or ""),
            # Held within bounds instead of refused: a model may ask for anything.
            context_lines=max(0, min(call.number("context_lines", 1), _MOST_AROUND)),
            offset=offset,
            limit=PAGE,
        )
        return "\n".join(_grepped(request, await self._memory.grep_files(request)))

    async def search(self, call: BuiltinCall) -> str:
        """Find chunks by their meaning."""
        query = call.text("query")
        limit = max(1, min(call.number("limit", 5), _MOST_CHUNKS))
        request = pb.SearchFilesRequest(agent_id=call.run.agent_id, query=query, limit=limit)
        return "\n".join(_searched(query, (await self._memory.search_files(request)).results))


FILE_TOOLS: Mapping[str, Callable[[FileTools, BuiltinCall], Awaitable[str]]] = {
    "open_files": FileTools.open,
    "grep_files": FileTools.grep,
    "semantic_search_files": FileTools.search,
}
"""What executes each tool that reads files."""


def _asked(call: BuiltinCall) -> list[FileToOpen]:
    """Return the files that a call names. Raises BuiltinArgumentError."""
    given = call.arguments.get("file_requests")
    given = [given] if isinstance(given, (dict, str)) else given
    if not isinstance(given, list) or not given:
        raise BuiltinArgumentError(f"{call.name}(): 'file_requests' must be a list with a file at least")
    return [_file(call, {"file_name": each} if isinstance(each, str) else each) for each in given]


def _file(call: BuiltinCall, given: Any) -> FileToOpen:
    if not isinstance(given, dict):
        raise BuiltinArgumentError(f"{call.name}(): each of 'file_requests' must be an object with 'file_name'")
    asked = BuiltinCall(call.run, call.key, call.name, given)
    file = FileToOpen(file_name=asked.text("file_name"))
    for name, least in (("offset", 0), ("length", 1)):
        if given.get(name) is None:
            continue
        number = asked.number(name, least)
        if number < least:
            raise BuiltinArgumentError(f"{call.name}(): '{name}' must be at least {least}")
        setattr(file, name, number)
    return file


def _range(file: OpenedFile) -> str:
    if not file.HasField("start_line"):
        return file.file_name
    return f"{file.file_name} (lines {file.start_line}-{file.end_line if file.HasField('end_line') else 'end'})"


def _grepped(asked: pb.GrepFilesRequest, found: pb.GrepFilesResponse) -> Iterator[str]:
    if not found.match_count:
        yield f"No line matches '{asked.pattern}' in {_count(found.searched_file_count, 'file')}."
    else:
        first, last = asked.offset + 1, asked.offset + len(found.matches)
        shown = (
            f"showing matches {first}-{last} of {found.match_count}" if found.matches else "none from this offset on"
        )
        yield f"Found {found.match_count} total matches across {_count(len(found.files), 'file')} ({shown})"
        yield "=" * 80
        for file in found.files:
            yield f"- {file.file_name}: {_count(file.match_count, 'match', 'matches')}"
        for match in found.matches:
            yield from _match(match)
        if found.matches and last < found.match_count:
            yield f"\nTo see the next matches, call grep_files again with offset={last}."
    if found.end:
        yield _WHY[found.end]
    if found.skipped_file_names:
        yield f"Too large to be searched: {', '.join(found.skipped_file_names)}"


def _match(match: GrepMatch) -> Iterator[str]:
    yield f"\n=== {match.file_name}:{match.line_number} ==="
    for number, line in enumerate(match.lines, match.first_line_number):
        yield f"{'>' if number == match.line_number else ' '} {number}: {line}"


def _searched(query: str, results: Sequence[FileSearchResult]) -> Iterator[str]:
    if not results:
        yield f"Nothing in the files fits the query: '{query}'"
        return
    files = Counter(result.file_name for result in results)
    yield f"Found {len(results)} semantic matches in {_count(len(files), 'file')} for query: '{query}'"
    yield "=" * 80
    for result in results:
        yield f"\n=== {result.file_name} (passage #{result.passage_number}) (score: {result.score:.3f}) ==="
        lines = result.text.splitlines()
        yield from lines[:_CHUNK_LINES]
        if len(lines) > _CHUNK_LINES:
            yield f"[{len(lines) - _CHUNK_LINES} more lines]"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
