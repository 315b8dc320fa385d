"""Taking files in: their bytes come in a stream, are kept part by part, and are a file once all came."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from letta.jsonmap.v1.uploaded_file_pb2 import UploadedFile
from letta.memory.v1.file_pb2 import File, FileStatus
from letta.memory.v1.file_service_pb2 import GetFileStorageResponse, GetUploadResponse, UploadFileRequest
from letta_common.actor import Actor
from letta_common.errors import (
    AlreadyExists,
    ChecksumMismatch,
    FolderNotFound,
    InvalidArgument,
    PayloadTooLarge,
    StorageExhausted,
    UnsupportedMediaType,
)
from letta_common.values.ids import derived_id, new_id
from letta_common.values.repeats import Digests
from letta_memory.domain.files import FileStore

PART_BYTES = 256 << 10
_LONGEST_NAME = 255  # bytes of UTF-8, as file systems have it
_LONGEST_TYPE = 255
_UNKNOWN = "application/octet-stream"
_UNREADABLE = ("image/", "audio/", "video/", "font/")
# Drawings are texts, and TypeScript has the ending of a kind of film.
_TEXTS = frozenset({"image/svg+xml", "video/mp2t", "video/vnd.dlna.mpeg-tts"})
# What does not become right by sending more, so that nothing of it is kept; what was only cut off stays.
_FINAL = (AlreadyExists, ChecksumMismatch, FolderNotFound, InvalidArgument, PayloadTooLarge, StorageExhausted)
# What the message of a stream says beside what the file is, so that an upload may go on or be repeated.
_NOT_OF_THE_FILE = ("request_id", "offset", "file")


@dataclass(frozen=True, slots=True)
class NewUpload:
    """A file that comes in, as its first message says."""

    file: File
    duplicates: int
    """A `DuplicateHandling`."""
    token: str
    """Tells one stream of its bytes from another."""
    request_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload that may go on: bytes that came, or the file when all came before."""

    received: int
    file: File | None = None


class UploadStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def begin(self, actor: Actor, new: NewUpload, *, anew: bool) -> Begun:
        """Begin an upload or take it over from another stream, without what came before if it begins anew.

        Raises:
            FolderNotFound: the organization has no such folder.
            IdempotencyConflict: another request has its key.
        """
        ...

    async def append_part(self, actor: Actor, new: NewUpload, offset: int, part: bytes) -> None:
        """Keep a part. Raises StorageExhausted, and StaleEtag when another stream goes on with the upload."""
        ...

    async def get_part(self, actor: Actor, file_id: str, number: int) -> bytes:
        """Return a part that came, from 0. Raises FileNotFound."""
        ...

    async def finish(self, actor: Actor, new: NewUpload, size: int, rest: bytes, sha256: bytes) -> tuple[File, str]:
        """Make a file of what came; return it, and the id of the file whose place it took.

        Raises:
            FolderNotFound: the folder was deleted meanwhile.
            AlreadyExists: the folder has a file of that name, and the new one shall not be there then.
            StorageExhausted: the organization would store more than it may.
            StaleEtag: another stream goes on with the upload.
        """
        ...

    async def cancel(self, actor: Actor, new: NewUpload) -> None:
        """Forget an upload, unless another stream goes on with it."""
        ...

    async def get_upload(self, actor: Actor, folder_id: str, file_id: str) -> GetUploadResponse:
        """Return how much of an upload came. Raises FolderNotFound."""
        ...

    async def get_storage(self, actor: Actor) -> GetFileStorageResponse:
        """Return how many bytes of files the organization stores, and how many it may."""
        ...


class Uploads:
    """Takes files in."""

    def __init__(
        self, store: UploadStore, files: FileStore, digests: Digests, *, most_bytes: int, taken: Callable[[], None]
    ) -> None:
        self._store = store
        self._taken = taken
        self._files = files
        self._digests = digests
        self._most = most_bytes

    async def take(self, actor: Actor, requests: AsyncIterator[UploadFileRequest]) -> File:
        """Keep what a stream holds as a file.

        Raises:
            FolderNotFound, AlreadyExists, IdempotencyConflict, StaleEtag: as the store says.
            InvalidArgument: there is no message, the name is none, or nothing goes on at the offset.
            UnsupportedMediaType: it has no text, as its sender or its name says.
            PayloadTooLarge: the file is larger than files may be.
            StorageExhausted: the organization would store more than it may.
            ChecksumMismatch: other bytes came than the checksum says.
        """
        first = await anext(requests, None)
        if first is None:
            raise InvalidArgument(
                "the stream holds no message; the first one says the folder and the file", field="file"
            )
        new = self._new(actor, first)
        begun = await self._store.begin(actor, new, anew=not first.offset)
        if begun.file is not None:
            return begun.file
        if begun.received != first.offset:
            text = f"{begun.received} bytes came before, and nothing goes on at {first.offset}; ask GetUpload"
            raise InvalidArgument(text, field="offset")
        try:
            kept = await self._kept(actor, new, first, requests)
        except _FINAL:
            await self._forget(actor, new)
            raise
        except asyncio.CancelledError:
            if not first.request_id:  # nobody can go on with it
                await self._forget(actor, new)
            raise
        if kept is None:
            if not first.request_id:
                await self._forget(actor, new)
            text = "the stream ended before the bytes that `file.size` says; ask GetUpload, and go on from there"
            raise InvalidArgument(text, field="file.size")
        file, replaced = kept
        self._taken()
        for gone in filter(None, (replaced, new.file.id if file.id != new.file.id else "")):
            await self._purge(actor, gone)
        return file

    async def parts_of(self, actor: Actor, folder_id: str, file_id: str) -> AsyncIterator[bytes]:
        """Yield the bytes of a file in parts, an empty one if there are none. Raises FolderNotFound, FileNotFound."""
        file = await self._files.get(actor, folder_id, file_id)
        if not file.size_bytes:
            yield b""
        for number in range(-(-file.size_bytes // PART_BYTES)):
            yield await self._store.get_part(actor, file_id, number)

    async def _forget(self, actor: Actor, new: NewUpload) -> None:
        await self._store.cancel(actor, new)
        await self._purge(actor, new.file.id)

    async def _purge(self, actor: Actor, file_id: str) -> None:
        while await self._files.purge(actor.organization_id, file_id):
            pass

    async def _kept(
        self, actor: Actor, new: NewUpload, first: UploadFileRequest, requests: AsyncIterator[UploadFileRequest]
    ) -> tuple[File, str] | None:
        """Keep what comes; return the file and the id of the one that it replaces, or None when not all came."""
        digest, offset, size = hashlib.sha256(), first.offset, -1
        for number in range(offset // PART_BYTES):
            digest.update(await self._store.get_part(actor, new.file.id, number))
        waiting = bytearray()
        async with aclosing(_files(first, requests)) as files:
            async for file in files:
                size = file.size if file.HasField("size") else size
                self._require_fit(max(size, offset + len(waiting) + len(file.content)))
                digest.update(file.content)
                waiting += file.content
                while len(waiting) >= PART_BYTES:
                    await self._store.append_part(actor, new, offset, bytes(waiting[:PART_BYTES]))
                    del waiting[:PART_BYTES]
                    offset += PART_BYTES
        came = offset + len(waiting)
        # Over the network a stream that broke off ends as one that is complete: only the size tells them apart.
        if size < 0 or came < size:
            return None
        if came > size:
            raise InvalidArgument(f"{came} bytes came, and `file.size` says {size}", field="file.size")
        if first.sha256 and digest.hexdigest() != first.sha256.lower():
            text = f"the {came} bytes that came have another checksum, {digest.hexdigest()}; send them again"
            raise ChecksumMismatch(text, sha256=digest.hexdigest())
        return await self._store.finish(actor, new, came, bytes(waiting), digest.digest())

    def _require_fit(self, size: int) -> None:
        if size > self._most:
            raise PayloadTooLarge(f"a file has at most {self._most} bytes; split it", limit=str(self._most))

    def _new(self, actor: Actor, first: UploadFileRequest) -> NewUpload:
        original = _base_name(first.file.file_name)
        name = first.name or original
        _require_name(name, "name" if first.name else "file.file_name")
        media_type = _media_type(first.file.content_type, original or name)
        if media_type.startswith(_UNREADABLE) and media_type not in _TEXTS:
            text = f"files of {media_type} have no text to be read; send a document"
            raise UnsupportedMediaType(text, media_type=media_type)
        described = self._digests.of(first, name, without=_NOT_OF_THE_FILE)
        return NewUpload(
            file=File(
                id=upload_id(actor, first.folder_id, first.request_id) if first.request_id else new_id("file"),
                folder_id=first.folder_id,
                organization_id=actor.organization_id,
                name=name,
                original_name=original or name,
                media_type=media_type,
                status=FileStatus.FILE_STATUS_PENDING,
                created_by_id=actor.user_id,
            ),
            duplicates=first.duplicate_handling,
            token=new_id("upload"),
            request_hash=described if first.request_id else b"",
        )


def upload_id(actor: Actor, folder_id: str, request_id: str) -> str:
    """Return the id of the file that the upload with a key makes."""
    return derived_id("file", actor.organization_id, folder_id, request_id)


async def _files(
    first: UploadFileRequest, rest: AsyncIterator[UploadFileRequest]
) -> AsyncGenerator[UploadedFile, None]:
    yield first.file
    async for request in rest:
        if request.folder_id != first.folder_id:
            raise InvalidArgument("a stream is of one folder", field="folder_id")
        yield request.file


def _base_name(name: str) -> str:
    """Return a name less its directories: some senders give whole paths, and none of them means one of ours."""
    return PurePosixPath(name.replace("\\", "/")).name


def _require_name(name: str, field: str) -> None:
    """Raise InvalidArgument for what is no name of a file."""
    if not name or name in {".", ".."} or "/" in name or "\\" in name:
        raise InvalidArgument("a file needs a name without directories", field=field)
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidArgument("a name of a file has no control characters", field=field)
    if len(name.encode()) > _LONGEST_NAME:
        raise InvalidArgument(f"a name of a file has at most {_LONGEST_NAME} bytes", field=field)


def _media_type(given: str, name: str) -> str:
    """Return what the sender says, without parameters; what the name says where that is nothing."""
    said = given.partition(";")[0].strip().lower()
    return (
        said if said not in {"", _UNKNOWN} and len(said) <= _LONGEST_TYPE else mimetypes.guess_type(name)[0] or _UNKNOWN
    )
