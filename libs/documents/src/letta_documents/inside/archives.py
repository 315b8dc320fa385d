"""Refuses ZIP containers that unpack to far too much, before anything is unpacked."""

from __future__ import annotations

import zipfile
from itertools import pairwise

from letta_documents.inside.faults import Corrupt, Protected, TooLarge

_MOST_ENTRIES = 10_000
_MOST_BYTES = 512 << 20
_ENCRYPTED = 1


def require_bounded(archive: zipfile.ZipFile) -> None:
    """Raises TooLarge, Corrupt or Protected. What unpacks to more than it says ends with an error as it is read."""
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise TooLarge(f"it has more than {_MOST_ENTRIES} entries")
    size = sum(entry.file_size for entry in entries)
    if size > _MOST_BYTES:
        raise TooLarge(f"it unpacks to {size} bytes, the limit is {_MOST_BYTES}")
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise Protected("it needs a password")
    ends = sorted((entry.header_offset, entry.compress_size) for entry in entries)
    if any(begin + length > following for (begin, length), (following, _) in pairwise(ends)):
        raise Corrupt("its entries overlap")
