"""Archives that go out and come in as streams of passages, of which neither side holds more than a message."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from letta.memory.v1.archive_service_pb2 import ExportPassagesRequest, ImportPassagesRequest
from letta.memory.v1.passage_pb2 import PassageRecord
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument, ValidationFailed
from letta_common.values.ids import derived_id, new_id

_ENTRY = re.compile(r"passages\[(\d+)\]")
# What half-precision numbers hold; below the least of them all components would be zero.
_LARGEST, _LEAST = 65_504.0, 6.2e-5


@dataclass(frozen=True, slots=True)
class PassageImport:
    """How far an import is."""

    archive_id: str
    import_id: str
    """Empty where it cannot go on."""
    received: int = 0
    written: int = 0
    begun_at: int = 0
    """Entries that came by earlier streams than this one."""

    def path_of(self, number: int, name: str = "") -> str:
        """Return the path in its stream of an entry, or of a field of it, by its number in the next message."""
        path = f"passages[{self.received - self.begun_at + number}]"
        return f"{path}.{name}" if name else path


class TransferStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def get_last_place(self, actor: Actor, archive_id: str) -> int:
        """Return where the newest passage of an archive stands; 0 when there is none. Raises ArchiveNotFound."""
        ...

    async def list_records(
        self, actor: Actor, archive_id: str, places: tuple[int, int], *, embeddings: bool, now: datetime
    ) -> list[PassageRecord]:
        """Return the next passages behind the first place, up to the last one; none when all came."""
        ...

    async def get_import(self, actor: Actor, archive_id: str, import_id: str) -> PassageImport:
        """Return how far an import is. Raises ArchiveNotFound."""
        ...

    async def create_records(
        self, actor: Actor, so_far: PassageImport, ids: Sequence[str], records: Sequence[PassageRecord], now: datetime
    ) -> int:
        """Write entries, all or none; return how many did not stand already.

        Raises:
            ArchiveNotFound: the organization has no such archive.
            InvalidArgument: a vector has another dimension than those of the archive.
            StaleEtag: another stream goes on with the import.
        """
        ...


class Transfers:
    """Takes passages out of archives and into them."""

    def __init__(self, store: TransferStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def export(self, actor: Actor, request: ExportPassagesRequest) -> AsyncIterator[list[PassageRecord]]:
        """Yield the passages that were there at the beginning, some at a time. Raises ArchiveNotFound."""
        last = await self._store.get_last_place(actor, request.archive_id)
        after = request.after_place
        while after < last:
            records = await self._store.list_records(
                actor,
                request.archive_id,
                (after, last),
                embeddings=request.include_embeddings,
                now=self._clock.now(),
            )
            if not records:
                return
            yield records
            after = records[-1].place

    async def take(self, actor: Actor, requests: AsyncIterator[ImportPassagesRequest]) -> PassageImport:
        """Keep the passages of a stream, those of each message all or none; return how far the import is then.

        Raises:
            ArchiveNotFound, StaleEtag: as the store says.
            ValidationFailed, InvalidArgument: an entry cannot be kept; the error names it by its number in the import.
        """
        try:
            first = await anext(requests, None)
        except ValidationFailed as error:
            raise _numbered(error, PassageImport("", "")) from error
        if first is None:
            raise InvalidArgument("the stream holds no message; the first one names the archive", field="archive_id")
        so_far = await self._begin(actor, first)
        so_far = await self._write(actor, so_far, first.passages)
        try:
            async for request in requests:
                if request.archive_id != first.archive_id:
                    raise InvalidArgument("a stream is of one archive", field="archive_id")
                so_far = await self._write(actor, so_far, request.passages)
        except ValidationFailed as error:
            raise _numbered(error, so_far) from error
        return so_far

    async def _begin(self, actor: Actor, first: ImportPassagesRequest) -> PassageImport:
        known = await self._store.get_import(actor, first.archive_id, first.import_id)
        if not first.offset:
            return PassageImport(first.archive_id, first.import_id)
        if known.received != first.offset:
            text = f"{known.received} entries came before, and nothing goes on at {first.offset}; ask GetPassageImport"
            raise InvalidArgument(text, field="offset")
        return replace(known, begun_at=first.offset)

    async def _write(self, actor: Actor, so_far: PassageImport, records: Sequence[PassageRecord]) -> PassageImport:
        if not records:
            return so_far
        for number, record in enumerate(records):
            _require_vector(record, so_far.path_of(number, "embedding"))
        ids = [_id(actor, so_far, number, record) for number, record in enumerate(records, so_far.received)]
        written = await self._store.create_records(actor, so_far, ids, records, self._clock.now())
        return replace(so_far, received=so_far.received + len(records), written=so_far.written + written)


def _id(actor: Actor, so_far: PassageImport, number: int, record: PassageRecord) -> str:
    """Return the id of the passage that an entry makes: the same one whenever it comes again."""
    if record.key:
        return derived_id("passage", actor.organization_id, so_far.archive_id, "key", record.key)
    if so_far.import_id:
        return derived_id("passage", actor.organization_id, so_far.archive_id, "import", so_far.import_id, str(number))
    return new_id("passage")


def _require_vector(record: PassageRecord, path: str) -> None:
    if not record.embedding:
        return
    sizes = [abs(component) for component in record.embedding]
    if not all(size <= _LARGEST for size in sizes):  # what is no number is not less either
        why = f"has components beyond {_LARGEST:g}, or that are no numbers"
    elif max(sizes) < _LEAST:
        why = "has no component that is not zero, which is no direction"
    else:
        return
    raise InvalidArgument(f"{path} {why}; leave it out, and the text is embedded", field=path)


def _numbered(error: ValidationFailed, so_far: PassageImport) -> ValidationFailed:
    """Return the error of a message with the numbers that its entries have in the stream."""

    def numbered(path: str) -> str:
        return _ENTRY.sub(lambda found: so_far.path_of(int(found[1])), path, count=1)

    fields = {numbered(path): why for path, why in error.metadata.items()}
    return ValidationFailed("; ".join(f"{path}: {why}" if path else why for path, why in fields.items()), **fields)
