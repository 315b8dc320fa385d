"""The time zones that agents live in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from google.protobuf.timestamp_pb2 import Timestamp

from letta_common.errors import InvalidArgument

UTC = "UTC"
_NO_PLACES = frozenset({"localtime", "factory"})
"""What the database lists beside zones: the clock of this machine, and the lack of a zone."""


def zone_of(text: str) -> str:
    """Return the name of a time zone as the tz database writes it; no text means UTC. Raises InvalidArgument."""
    if not text:
        return UTC
    name = _names().get(text.lower())
    if name is None:
        raise InvalidArgument(
            f"{text!r} is no time zone; use a name of the tz database, such as Europe/Berlin, Etc/GMT-2 or UTC",
            field="timezone",
        )
    return name


def known(stored: str) -> str:
    """Return the time zone that was stored, or UTC where what was stored is none."""
    # Agents may have been stored before zones were checked, and the tz database changes.
    return _names().get(stored.lower(), UTC)


def placed(moment: datetime, timezone: str) -> datetime:
    """Return a moment that names no zone as one of a stored time zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(known(timezone)))


def set_time(field: Timestamp, text: str, timezone: str, *, end: bool = False) -> None:
    """Read a date or a time, in a time zone where it names none; a date as an end means its whole day.

    Raises InvalidArgument.
    """
    if not text:
        return
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        hint = "use ISO 8601: YYYY-MM-DD or YYYY-MM-DDTHH:MM"
        raise InvalidArgument(f"{text!r} is no date: {hint}", date=text) from error
    # A date alone is midnight, which as an end would leave out the day that was meant.
    if end and len(text) <= len("YYYY-MM-DD"):
        moment = datetime.combine(moment.date(), time.max)
    try:
        field.FromDatetime(placed(moment, timezone))
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"{text!r} is outside of the years 1 to 9999", date=text) from error


def local(now: datetime, timezone: str) -> tuple[datetime, str]:
    """Return a moment in a stored time zone, and the name of the zone that this is."""
    name = known(timezone)
    return now.astimezone(ZoneInfo(name)), name


@cache
def _names() -> Mapping[str, str]:
    return {name.lower(): name for name in available_timezones() if name.lower() not in _NO_PLACES}
