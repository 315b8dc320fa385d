"""The time zones that agents live in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

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
    return _names().get(stored.lower(), UTC)


def placed(moment: datetime, timezone: str) -> datetime:
    """Return a moment that names no zone as one of a stored time zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(known(timezone)))


def local(now: datetime, timezone: str) -> tuple[datetime, str]:
    """Return a moment in a stored time zone, and the name of the zone that this is."""
    name = known(timezone)
    return now.astimezone(ZoneInfo(name)), name


@cache
def _names() -> Mapping[str, str]:
    return {name.lower(): name for name in available_timezones() if name.lower() not in _NO_PLACES}
