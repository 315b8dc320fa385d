"""Plain values of Python from the JSON that a model wrote, and containers from text."""

from __future__ import annotations

import ast
import datetime
import json
import math
import re
import sys
from collections.abc import Callable
from typing import Any

_TRUE = {"true", "yes", "on", "1", "t", "y"}
_FALSE = {"false", "no", "off", "0", "f", "n"}
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"([-+])?P(?:{_NUMBER}W)?(?:{_NUMBER}D)?(?:T(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?")
_CLOCK = re.compile(r"(-)?(?:(\d+) ?(?:days?)?[ ,]+)?(\d+):(\d+)(?::(\d+(?:\.\d+)?))?")
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")
_SHOWN = 120
_NAMES: dict[type, str] = {list: "list", dict: "object"}


class Unfit(Exception):
    """A value does not fit a type. The message says why, `place` where inside of the argument."""

    def __init__(self, why: str, place: str = "") -> None:
        super().__init__(why)
        self.place = place

    def inside(self, place: int | str) -> Unfit:
        """Return the same, one level further out."""
        step = f"[{place}]" if isinstance(place, int) else place if place.startswith("[") else f".{place}"
        return Unfit(str(self), step + self.place)


def shown(value: Any) -> str:
    """Return a value as an error names it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def container_of(value: Any, *kinds: type) -> Any:
    """Return a list or an object, which may be given as text of JSON or of Python. Raises Unfit."""
    if isinstance(value, kinds):
        return value
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(value.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(found, tuple | set):
                found = list(found)
            if isinstance(found, kinds):
                return found
    wanted = " or ".join(_NAMES[kind] for kind in kinds)
    raise Unfit(f"must be a JSON {wanted}, not {shown(value)}")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        raise Unfit("must be a text, not null")
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        raise Unfit(f"must be a text, not {shown(value)}") from None


def _truth(value: Any) -> bool:
    text = str(value).strip().lower()
    if isinstance(value, bool | str) or value in (0, 1):
        if text in _TRUE or value == 1:
            return True
        if text in _FALSE or value == 0:
            return False
    raise Unfit(f"must be true or false, not {shown(value)}")


def _integer(value: Any) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value.strip())
        except ValueError:
            pass
    number = _float(value, "a whole number")
    if not number.is_integer():
        raise Unfit(f"must be a whole number, not {shown(value)}")
    return int(number)


def _float(value: Any, wanted: str = "a number") -> float:
    if isinstance(value, int | float | str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise Unfit(f"must be {wanted}, not {shown(value)}")


def _decimal(value: Any) -> Any:
    decimal = sys.modules["decimal"]
    try:
        return decimal.Decimal(str(value).strip())
    except decimal.InvalidOperation:
        raise Unfit(f"must be a number, not {shown(value)}") from None


def _complex(value: Any) -> complex:
    try:
        return complex(value)
    except (TypeError, ValueError):
        raise Unfit(f"must be a number, not {shown(value)}") from None


def _moment(value: Any) -> datetime.datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.datetime.fromtimestamp(value, datetime.timezone.utc)  # noqa: UP017 - machines may be older
        except (ValueError, OverflowError, OSError):
            pass
    elif isinstance(value, str):
        try:
            return datetime.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", value.strip()))
        except ValueError:
            pass
    raise Unfit(f"must be a time like 2026-01-31T12:00:00Z, not {shown(value)}")


def _day(value: Any) -> datetime.date:
    try:
        return _moment(value).date()
    except Unfit:
        raise Unfit(f"must be a day like 2026-01-31, not {shown(value)}") from None


def _clock(value: Any) -> datetime.time:
    try:
        return datetime.time.fromisoformat(re.sub(r"[zZ]$", "+00:00", str(value).strip()))
    except ValueError:
        raise Unfit(f"must be a time of day like 12:30:00, not {shown(value)}") from None


def _duration(value: Any) -> datetime.timedelta:
    text = str(value).strip()
    try:
        match = _DURATION.fullmatch(text)
        if match and len(text) > 1 and any(match.groups()[1:]):
            sign, *amounts = match.groups()
        elif match := _CLOCK.fullmatch(text):
            sign, *amounts = match[1], None, *match.groups()[1:]
        else:
            sign, amounts = None, [None, None, None, None, str(_float(value))]
        made = datetime.timedelta(**{unit: float(n) for unit, n in zip(_UNITS, amounts, strict=True) if n})
    except (Unfit, OverflowError):
        raise Unfit(f"must be seconds or a duration like PT1H30M, not {shown(value)}") from None
    return -made if sign == "-" else made


def _uuid(value: Any) -> Any:
    try:
        return sys.modules["uuid"].UUID(str(value).strip())
    except ValueError:
        raise Unfit(f"must be a UUID, not {shown(value)}") from None


def _path(value: Any) -> Any:
    return sys.modules["pathlib"].Path(_text(value))


_MAKERS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("builtins", "bool"): _truth,
    ("builtins", "int"): _integer,
    ("builtins", "float"): _float,
    ("builtins", "complex"): _complex,
    ("builtins", "str"): _text,
    ("builtins", "bytes"): lambda value: _text(value).encode(),
    ("datetime", "datetime"): _moment,
    ("datetime", "date"): _day,
    ("datetime", "time"): _clock,
    ("datetime", "timedelta"): _duration,
    ("uuid", "UUID"): _uuid,
    ("decimal", "Decimal"): _decimal,
    ("pathlib", "PurePath"): _path,
}
"""By module and name: what a tool declares it has loaded, and what it does not need not be loaded."""


def maker_of(kind: type) -> Callable[[Any], Any] | None:
    """Return what makes values of a type; None for types that are not plain ones."""
    # Subclasses of classes from modules are made as their base; a subclass of `str` or `int` is the tool's own.
    for base in kind.__mro__:
        place = (base.__module__.partition(".")[0], base.__name__)
        if place in _MAKERS and (base is kind or place[0] != "builtins"):
            return _MAKERS[place]
    return None
