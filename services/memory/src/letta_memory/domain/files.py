"""Files of folders, and where their bytes are: in the database, or in a bucket whose objects are noted there first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from letta.memory.v1.file_pb2 import File
from letta_common.actor import Actor
from letta_common.errors import PayloadTooLarge
from letta_common.process.periodic import Next
from letta_common.values.paging import Page
from letta_rpc.page_bytes import MAX_PAGE_BYTES

_CLAIMED_AT_ONCE = 200


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


@dataclass(frozen=True, slots=True)
class KeptPart:
    """A part of a file as its row has it: its bytes, or the object that has them."""

    size: int
    data: bytes | None
    key: str | None = None
    sha256: bytes | None = None


class Bucket(Protocol):
    """Storage of objects. Raises ServiceUnavailable when it does not answer."""

    async def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        ...

    async def get(self, key: str) -> bytes:
        """Return the bytes of an object. Raises LostObject when there is none."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are no failure."""
        ...


class PartKeeper(Protocol):
    """Keeps the bytes of the parts of files."""

    async def keep(self, actor: Actor, name: str, data: bytes) -> KeptPart:
        """Keep the bytes of a part without a row yet, under a name of the organization. Raises ServiceUnavailable."""
        ...

    async def read(self, part: KeptPart) -> bytes:
        """Return the bytes of a part. Raises ServiceUnavailable, and LostObject when they are not what was kept."""
        ...


class LooseObjectStore(Protocol):
    """Which objects belong to no file. These calls span organizations."""

    async def claim(self, most: int) -> list[tuple[str, str]]:
        """Claim some objects that are to be removed: the organization and the key of each."""
        ...

    async def forget(self, objects: Sequence[tuple[str, str]]) -> None:
        """Forget objects that were removed."""
        ...


class ObjectRemover:
    """Removes objects that belong to no file: of deleted ones, and what those left who died before there was a row."""

    def __init__(self, store: LooseObjectStore, bucket: Bucket) -> None:
        self._store = store
        self._bucket = bucket

    async def turn(self) -> Next:
        """Remove some; there may be more then. Raises ServiceUnavailable: they are removed later."""
        claimed = await self._store.claim(_CLAIMED_AT_ONCE)
        if not claimed:
            return Next.AFTER_A_PAUSE
        await self._bucket.delete([key for _, key in claimed])
        await self._store.forget(claimed)
        return Next.AT_ONCE
