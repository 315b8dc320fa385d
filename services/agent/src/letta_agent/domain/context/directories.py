"""The folders of an agent as its prompt shows them: which files there are, and the text of those that are open."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import quoteattr

from letta.memory.v1.agent_file_pb2 import Directories, Directory, DirectoryFile


def shown_directories(directories: Directories) -> str:
    """Return the section about an agent's folders; nothing without folders."""
    if not directories.directories:
        return ""
    opened = sum(file.HasField("view") for directory in directories.directories for file in directory.files)
    lines = [
        "<directories>",
        "<file_limits>",
        f"- current_files_open={opened}",
        f"- max_files_open={directories.max_files_open}",
        "</file_limits>",
    ]
    for directory in directories.directories:
        lines += _directory(directory, directories.view_char_limit)
    return "\n".join((*lines, "</directories>"))


def _directory(directory: Directory, limit: int) -> Iterator[str]:
    yield f"<directory name={quoteattr(directory.name)}>"
    if directory.description:
        yield f"<description>{directory.description}</description>"
    if directory.instructions:
        yield f"<instructions>{directory.instructions}</instructions>"
    for file in directory.files:
        yield from _file(file, limit)
    if directory.unlisted_file_count:
        yield f"- {directory.unlisted_file_count} more files are not listed; search for what you need"
    yield "</directory>"


def _file(file: DirectoryFile, limit: int) -> Iterator[str]:
    name = quoteattr(file.name)
    if not file.HasField("view"):
        yield f'<file status="closed" name={name}></file>'
        return
    yield f'<file status="open" name={name}>'
    yield from ("<metadata>", "- read_only=true", f"- chars_current={len(file.view)}", f"- chars_limit={limit}")
    yield from ("</metadata>", "<value>", file.view, "</value>", "</file>")
