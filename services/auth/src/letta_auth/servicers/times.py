"""Times on the wire."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


def packed(at: datetime | None) -> Timestamp | None:
    """Return a time as the wire carries it; None stays absent."""
    if at is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def unpacked(stamp: Timestamp) -> datetime:
    """Return a time of the wire."""
    return stamp.ToDatetime(tzinfo=UTC)
