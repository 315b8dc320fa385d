"""Files of folders."""

from __future__ import annotations

from typing import Protocol

from letta.memory.v1.file_pb2 import File
from letta_common.actor import Actor
from letta_common.errors import PayloadTooLarge
from letta_common.values.paging import Page
from letta_rpc.page_bytes import MAX_PAGE_BYTES


class FileStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def get(self, actor: Actor, folder_id: str, file_id: str) -> File:
        """Return one file. Raises FolderNotFound, FileNotFound."""
        ...

    async def list_files(self, actor: Actor, folder_id: str, page: Page) -> list[File]:
        """Return a page of a folder's files. Raises FolderNotFound, CursorNotFound."""
        ...

    async def find_text(self, actor: Actor, file_id: str, most: int) -> str | None:
        """Return the text of a file, if it is known and has at most so many bytes."""
        ...

    async def delete(self, actor: Actor, folder_id: str, file_id: str) -> None:
        """Take a file away from everybody; `purge` removes it. Raises FolderNotFound, FileNotFound."""
        ...

    async def purge(self, organization_id: str, file_id: str) -> bool:
        """Remove some rows of a deleted file; say whether there may be more."""
        ...


class Files:
    """Operations on files."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    async def get(self, actor: Actor, folder_id: str, file_id: str, *, content: bool) -> File:
        """Return one file, with its text if that is asked for and known.

        Raises:
            FolderNotFound, FileNotFound: the organization has no such file.
            PayloadTooLarge: the text is larger than an answer may be.
        """
        file = await self._store.get(actor, folder_id, file_id)
        if content and file.HasField("chunk_count"):
            text = await self._store.find_text(actor, file_id, MAX_PAGE_BYTES)
            if text is None:
                raise PayloadTooLarge(
                    f"the text of file {file_id} is larger than {MAX_PAGE_BYTES} bytes; download the file",
                    file_id=file_id,
                )
            file.content = text
        return file

    async def list_files(self, actor: Actor, folder_id: str, page: Page, *, content: bool) -> list[File]:
        """Return a page of files; with texts it ends where they would be too large together. Raises FolderNotFound."""
        files = await self._store.list_files(actor, folder_id, page)
        return await self._with_texts(actor, files, page) if content else files

    async def _with_texts(self, actor: Actor, files: list[File], page: Page) -> list[File]:
        """Add texts from the end of the page that is nearest to the cursor on, until they are too large together."""
        kept: list[File] = []
        size = 0
        for file in reversed(files) if page.backwards else files:
            # One at a time, since nobody knows how large they are together.
            text = await self._store.find_text(actor, file.id, MAX_PAGE_BYTES)
            size += len((text or "").encode())
            if kept and size > MAX_PAGE_BYTES:
                break
            if text is not None:
                file.content = text
            kept.append(file)
        return kept[::-1] if page.backwards else kept

    async def delete(self, actor: Actor, folder_id: str, file_id: str) -> None:
        """Remove a file with all that is of it. Raises FolderNotFound, FileNotFound."""
        await self._store.delete(actor, folder_id, file_id)
        while await self._store.purge(actor.organization_id, file_id):
            pass
