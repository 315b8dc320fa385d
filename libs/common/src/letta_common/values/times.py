"""Times and durations on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_SECOND = 1_000_000_000
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def stamp_of(time: datetime | None) -> Timestamp | None:
    """Return a time as the wire carries it; None stays absent."""
    # A fifth of what Timestamp.FromDatetime takes.
    return None if time is None else moment_of((time - _EPOCH) // _MICROSECOND * 1_000)


def moment_of(nanoseconds: int) -> Timestamp:
    """Return a moment, counted from 1970, as the wire carries it."""
    return Timestamp(seconds=nanoseconds // _SECOND, nanos=nanoseconds % _SECOND)


def duration_of(nanoseconds: int) -> Duration:
    """Return a duration, which is never negative, as the wire carries it."""
    return Duration(seconds=nanoseconds // _SECOND, nanos=nanoseconds % _SECOND)


def time_of(stamp: Timestamp) -> datetime:
    """Return a time of the wire, to the microsecond."""
    return stamp.ToDatetime(tzinfo=UTC)


def optional_time(message: Any, name: str) -> datetime | None:
    """Return the time in a field of a message, or None when it is absent."""
    return time_of(getattr(message, name)) if message.HasField(name) else None
