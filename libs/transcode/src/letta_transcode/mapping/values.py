"""Conversions between JSON values and proto values that generated code calls."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
from google.protobuf import json_format

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

Loc = tuple[str | int, ...]
Problems = list[dict[str, Any]]

# A list of a thousand wrong items is wrong in one way; the answer must not be larger than the request.
MAX_PROBLEMS = 20
# Below the hundred levels at which protobuf itself refuses to read a message.
MAX_DEPTH = 80
# Characters of a wrong value that are repeated: enough to find it, too few to fill a log.
_SHOWN = 120
# Without a zone, which would be written as an offset; each form of Letta writes its own behind the time.
_EPOCH = datetime(1970, 1, 1)
# Python has no floats of 32 bits, so they are written and read again to be rounded.
_SINGLE = struct.Struct("f")
_MIN_NORMAL = 2.0**-126  # smaller ones have fewer digits
_MAX_SINGLE = (2 - 2**-24) * 2.0**127  # from here on, rounding makes it infinite
_SECOND = 1_000_000_000
_LONGEST = 315_576_000_000
"""Seconds of the longest duration that the format allows: about 10,000 years."""
# The years 1 to 9999, as RFC 3339 writes them with four digits.
_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799
# 20 digits hold every number of 64 bits; longer texts are not worth an `int`, whose time grows with their square.
_INTEGER = re.compile(r"[+-]?\d{1,20}")
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s?")


def problem(problems: Problems, kind: str, loc: Loc, message: str, value: Any) -> None:
    """Note that a value of a request is wrong."""
    if len(problems) < MAX_PROBLEMS:
        problems.append({"type": kind, "loc": loc, "msg": message, "input": shown(value)})


def shown(value: Any) -> Any:
    """Return a value as error texts repeat it: cut when it is long."""
    if value is None or isinstance(value, bool | int | float):
        # JSON has whole numbers of any length, and a longer one may have millions of digits.
        return value if not isinstance(value, int) or abs(value) < 2**64 else "<number>"
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
    if isinstance(value, list):
        return "<array>" if value else []
    return "<object>" if value else {}


def bad_string(value: Any, loc: Loc, problems: Problems) -> None:
    problem(problems, "string_type", loc, "Input should be a valid string", value)


def bad_object(value: Any, loc: Loc, problems: Problems) -> None:
    problem(problems, "dict_type", loc, "Input should be a valid dictionary", value)


def bad_list(value: Any, loc: Loc, problems: Problems) -> None:
    problem(problems, "list_type", loc, "Input should be a valid list", value)


def bad_tag(value: Any, key: str, tags: list[str], loc: Loc, problems: Problems) -> None:
    if value is None:
        text = f"Unable to extract tag using discriminator {key!r}"
        problem(problems, "union_tag_not_found", loc, text, value)
        return
    text = f"Input tag {shown(value)!r} found using {key!r} does not match any of the expected tags: {_quoted(tags)}"
    problem(problems, "union_tag_invalid", loc, text, value)


def bad_kind(value: Any, kinds: list[str], loc: Loc, problems: Problems) -> None:
    problem(problems, "union_type", loc, f"Input should be one of: {', '.join(kinds)}", value)


def bad_keys(keys: list[str], loc: Loc, problems: Problems) -> None:
    problem(problems, "union_keys", loc, f"Input should have one of the keys {_quoted(keys)}", None)


def only_one(keys: list[str], loc: Loc, problems: Problems) -> None:
    problem(problems, "union_keys", loc, f"Input should have only one of the keys {_quoted(keys)}", None)


def absent(key: str, parent: dict[str, Any], loc: Loc, problems: Problems) -> None:
    """Note that a required key is missing, or null where that is no value."""
    if key in parent:
        problem(problems, "none_not_allowed", loc, "Input should not be null", None)
    else:
        problem(problems, "missing", loc, "Field required", parent)


def bool_key(key: str, loc: Loc, problems: Problems) -> bool | None:
    """Return the key of a map whose keys are booleans."""
    if key in ("true", "false"):
        return key == "true"
    problem(problems, "bool_parsing", loc, 'Key should be "true" or "false"', key)
    return None


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def too_deep(loc: Loc, problems: Problems) -> None:
    problem(problems, "recursion_limit", loc[:8], f"Input is nested more than {MAX_DEPTH} levels deep", None)


def to_string(value: Any, loc: Loc, problems: Problems) -> str | None:
    if type(value) is str:
        return value
    bad_string(value, loc, problems)
    return None


def to_bool(value: Any, loc: Loc, problems: Problems) -> bool | None:
    if type(value) is bool:
        return value
    problem(problems, "bool_type", loc, "Input should be a valid boolean", value)
    return None


def to_int(value: Any, low: int, high: int, loc: Loc, problems: Problems) -> int | None:
    """Accept integers, whole floats and integers as strings, within the range."""
    if type(value) is str:
        if not _INTEGER.fullmatch(value):
            problem(problems, "int_parsing", loc, "Input should be a valid integer, unable to parse string", value)
            return None
        value = int(value)
    elif type(value) is float and value.is_integer():
        value = int(value)
    elif type(value) is not int:
        kind = "int_from_float" if type(value) is float else "int_type"
        problem(problems, kind, loc, "Input should be a valid integer", value)
        return None
    if low <= value <= high:
        return int(value)
    problem(problems, "int_out_of_range", loc, f"Input should be between {low} and {high}", value)
    return None


def to_float(value: Any, loc: Loc, problems: Problems) -> float | None:
    """Accept finite numbers, also as strings."""
    if type(value) is str or type(value) is int or type(value) is float:
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
        problem(problems, "finite_number", loc, "Input should be a finite number", value)
    else:
        problem(problems, "float_type", loc, "Input should be a valid number", value)
    return None


def to_single(value: Any, loc: Loc, problems: Problems) -> float | None:
    """Accept finite numbers that fit 32 bits."""
    number = to_float(value, loc, problems)
    if number is not None and abs(number) >= _MAX_SINGLE:
        problem(problems, "finite_number", loc, "Input should be a finite number of 32 bits", value)
        return None
    return number


def to_bytes(value: Any, loc: Loc, problems: Problems) -> bytes | None:
    """Accept base64, also URL-safe and without padding."""
    if type(value) is str:
        text = value.replace("-", "+").replace("_", "/").rstrip("=")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            problem(problems, "base64", loc, "Input should be valid base64", value)
    else:
        bad_string(value, loc, problems)
    return None


def to_raw(value: Any, loc: Loc, problems: Problems) -> str | None:
    """Return a JSON value as text."""
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        try:
            return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        except (RecursionError, ValueError):
            problem(problems, "json_type", loc, f"Input cannot be kept as JSON: {error}", None)
            return None


def enum_reader(numbers: dict[str, int]) -> Callable[[Any, Loc, Problems], int | None]:
    """Return a function that accepts the names of an enum."""
    names = " or ".join([", ".join(repr(n) for n in list(numbers)[:-1]), repr(list(numbers)[-1])]) if numbers else ""

    def to_enum(value: Any, loc: Loc, problems: Problems) -> int | None:
        number = numbers.get(value) if type(value) is str else None
        if number is None:
            problem(problems, "enum", loc, f"Input should be {names.removeprefix(' or ')}", value)
        return number

    return to_enum


def fill_timestamp(value: Any, target: Any, loc: Loc, problems: Problems) -> None:
    """Accept RFC 3339, also without an offset (read as UTC) or without a time."""
    if type(value) is not str:
        problem(problems, "datetime_type", loc, "Input should be a valid datetime", value)
        return
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        problem(problems, "datetime_parsing", loc, "Input should be a valid datetime", value)
        return
    target.SetInParent()
    since = moment.replace(tzinfo=None) - _EPOCH
    target.seconds = since.days * 86_400 + since.seconds
    target.nanos = since.microseconds * 1_000


def timestamp(value: Any) -> str | None:
    """Write RFC 3339 with microseconds and `Z`; null when the moment is outside of years 1 to 9999."""
    if not _MIN_SECONDS <= value.seconds <= _MAX_SECONDS:
        return None
    moment = _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1_000)
    return moment.isoformat(timespec="microseconds") + "Z"


def timestamp_seconds(value: Any) -> str | None:
    """Write RFC 3339 to the second with `+00:00`; null when the moment is outside of years 1 to 9999."""
    if not _MIN_SECONDS <= value.seconds <= _MAX_SECONDS:
        return None
    return (_EPOCH + timedelta(seconds=value.seconds)).isoformat(timespec="seconds") + "+00:00"


def fill_duration(value: Any, target: Any, loc: Loc, problems: Problems) -> None:
    """Accept seconds, as a number or as text with an `s`."""
    text = f"{value:.9f}" if type(value) in (int, float) and math.isfinite(value) else value
    found = _DURATION.fullmatch(text) if type(text) is str else None
    if found is None:
        problem(problems, "time_delta_parsing", loc, 'Input should be seconds, as "1.5s" or 1.5', value)
        return
    if int(found[2]) > _LONGEST:
        text = f"Input should be at most {_LONGEST:,} seconds, about 10,000 years, either way"
        problem(problems, "time_delta_range", loc, text, value)
        return
    sign = -1 if found[1] else 1
    target.SetInParent()
    target.seconds = sign * int(found[2])
    target.nanos = sign * int((found[3] or "").ljust(9, "0"))


def duration(value: Any) -> str:
    """Write seconds with an `s`."""
    sign = "-" if value.seconds < 0 or value.nanos < 0 else ""
    fraction = f".{abs(value.nanos):09d}" if value.nanos else ""
    while fraction.endswith("000"):
        fraction = fraction[:-3]
    return f"{sign}{abs(value.seconds)}{fraction}s"


def fill_length(value: Any, target: Any, unit: int, loc: Loc, problems: Problems) -> None:
    """Accept the length of a duration as a whole number of units of so many nanoseconds."""
    most = min(_LONGEST * _SECOND // unit, 2**63 - 1)
    found = to_int(value, -most, most, loc, problems)
    if found is not None:
        target.SetInParent()
        seconds, nanos = divmod(abs(found) * unit, _SECOND)
        target.seconds, target.nanos = (seconds, nanos) if found >= 0 else (-seconds, -nanos)


def fill_moment(value: Any, target: Any, loc: Loc, problems: Problems) -> None:
    """Accept a moment as a whole number of nanoseconds since 1970."""
    found = to_int(value, -(2**63), 2**63 - 1, loc, problems)
    if found is not None:
        target.SetInParent()
        target.seconds, target.nanos = divmod(found, _SECOND)


def number(value: Any, unit: int) -> int:
    """Write a whole number of units of so many nanoseconds; what is finer is cut off."""
    nanos: int = value.seconds * _SECOND + value.nanos
    return nanos // unit if nanos >= 0 else -(-nanos // unit)


def fill_field_mask(value: Any, target: Any, loc: Loc, problems: Problems) -> None:
    """Accept paths joined by commas."""
    if type(value) is not str:
        bad_string(value, loc, problems)
        return
    target.SetInParent()
    target.paths.extend(path for path in value.split(",") if path)


def field_mask(value: Any) -> str:
    """Write paths joined by commas."""
    return ",".join(value.paths)


def canonical_filler(pool: DescriptorPool) -> Callable[[Any, Any, Loc, Problems], None]:
    """Return a function that reads canonical proto3 JSON into a message."""

    def fill(value: Any, target: Any, loc: Loc, problems: Problems) -> None:
        target.SetInParent()
        try:
            json_format.ParseDict(value, target, descriptor_pool=pool, max_recursion_depth=MAX_DEPTH)
        except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
            problem(problems, "value_error", loc, f"Input cannot be read: {str(error)[:200]}", value)

    return fill


def canonical_writer(pool: DescriptorPool) -> Callable[[Message], Any]:
    """Return a function that writes a message as canonical proto3 JSON."""

    def write(value: Message) -> Any:
        try:
            return json_format.MessageToDict(value, preserving_proto_field_name=True, descriptor_pool=pool)
        except (json_format.Error, ValueError, TypeError):
            return None

    return write


def raw(text: str) -> Any:
    """Splice JSON text into a document; text that is no JSON becomes a string."""
    if not text:
        return None
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    # Not parsed and written anew: numbers and the order of keys stay as they were.
    return orjson.Fragment(text)


def base64_text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def shortest(value: float) -> float:
    """Return the shortest decimal that is the same 32-bit float."""
    if not math.isfinite(value):
        return value
    # Six digits survive a 32-bit float, and nine always tell it from its neighbours; near zero it has fewer.
    for digits in range(6 if abs(value) >= _MIN_NORMAL else 1, 9):
        short = float(f"{value:.{digits}g}")
        if _SINGLE.unpack(_SINGLE.pack(short))[0] == value:
            return short
    return float(f"{value:.9g}")


def singles(message: Message, name: str) -> Any:
    """Return the 32-bit floats of a repeated field as what `orjson` writes with their shortest decimals.

    Five times faster where numpy is installed, which no service but those that work with vectors needs.
    """
    held = getattr(message, name)
    numpy = _numpy()
    if numpy is None:
        return [shortest(value) for value in held]
    # Protobuf's containers give no buffer, but a message of this field alone ends with its floats, packed.
    packed = type(message)(**{name: held}).SerializeToString()
    return numpy.frombuffer(packed, dtype=numpy.float32, offset=len(packed) - 4 * len(held))


@functools.cache
def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy
