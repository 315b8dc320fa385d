"""What no request may hold, whatever its method: texts too long, NUL, NaN, broken JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NoReturn

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from buf.validate import validate_pb2
from letta.common.v1 import limits_pb2
from letta.jsonmap.v1 import annotations_pb2

NUL = "holds a NUL character, which cannot be kept; leave it out"
SURROGATE = "holds half of a surrogate pair, which is no character; leave it out"
_ESCAPED = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_HALF = re.compile("[\ud800-\udfff]")
# Pairs of backslashes are backslashes of the text itself: only one that is left over makes `u0000` an escape.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
# The years 1 to 9999, which `google.protobuf.Timestamp` and Python's datetime have in common.
_FIRST_SECOND, _LAST_SECOND, _NANOS = -62_135_596_800, 253_402_300_799, 1_000_000_000
# About 10,000 years, as `google.protobuf.Duration` says.
_LONGEST = 315_576_000_000
TEXT_LIMIT: int = limits_pb2.RequestLimit.REQUEST_LIMIT_TEXT_CHARACTERS
_FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)

Violation = tuple[str, str]


def violations(message: Message, path: str = "") -> Iterator[Violation]:
    """Yield the path of each value that no service can use, and why."""
    of_whole = _OF_WHOLE.get(message.DESCRIPTOR.full_name)
    if of_whole is not None:
        yield from of_whole(message, path)
        return
    for field, value in message.ListFields():
        here = f"{path}.{field.name}" if path else field.name
        if not field.is_repeated:
            yield from _of_value(field, value, here)
        elif isinstance(value, Mapping) and field.message_type is not None:
            key, item = field.message_type.fields
            for name in value:
                yield from _of_value(key, name, here)
                yield from _of_value(item, value[name], f"{here}[{str(name)[:64]!r}]")
        else:
            for number, each in enumerate(value):
                yield from _of_value(field, each, f"{here}[{number}]")
                yield from _of_size(each, f"{here}[{number}]")


def _of_size(item: Any, path: str) -> Iterator[Violation]:
    """Yield an item of a list whose texts are too long together, though none of them is."""
    # Bytes are never fewer than characters, so most items need no count of their texts.
    if isinstance(item, Message) and item.ByteSize() > TEXT_LIMIT:
        lengths = list(_lengths(item))
        if sum(lengths) > TEXT_LIMIT and max(lengths) <= TEXT_LIMIT:
            yield path, f"has texts of {sum(lengths):,} characters; at most {TEXT_LIMIT:,} are allowed, so split it"


def _lengths(message: Message) -> Iterator[int]:
    """Yield the length of each text of a message that has no larger limit of its own."""
    for field, value in message.ListFields():
        if _is_apart(field):
            continue
        values = value if field.is_repeated else (value,)
        if isinstance(values, Mapping):
            values = values.values()
        for each in values:
            if isinstance(each, Message):
                yield from _lengths(each)
            elif isinstance(each, str) and not _has_own_limit(field):
                yield len(each)


@lru_cache(maxsize=4096)
def _is_apart(field: FieldDescriptor) -> bool:
    """Say whether the items of a list count for themselves alone."""
    return bool(field.GetOptions().Extensions[annotations_pb2.field].apart)


@lru_cache(maxsize=4096)
def _has_own_limit(field: FieldDescriptor) -> bool:
    """Say whether the contract allows more in this field than in texts at large, as for sources and documents."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return max(rules.string.max_len, rules.repeated.items.string.max_len) > TEXT_LIMIT


def _of_value(field: FieldDescriptor, value: Any, path: str) -> Iterator[Violation]:
    if field.type == field.TYPE_STRING:
        yield from _of_text(field, value, path)
    elif field.type == field.TYPE_MESSAGE:
        yield from violations(value, path)
    elif field.type in _FLOATS and not math.isfinite(value):
        yield path, "is no finite number"


def _of_text(field: FieldDescriptor, text: str, path: str) -> Iterator[Violation]:
    if len(text) > TEXT_LIMIT and not _has_own_limit(field):
        yield path, f"has {len(text):,} characters; at most {TEXT_LIMIT:,} are allowed, so split it"
        return
    options = field.GetOptions().Extensions[annotations_pb2.field]
    if "\0" in text and not options.keeps_nul:
        yield path, NUL
    elif options.raw and text:
        why = _of_json(text, keeps_nul=options.keeps_nul)
        if why:
            yield path, why


def _of_json(text: str, *, keeps_nul: bool) -> str:
    """Say why a text is no JSON, or what its strings hold that cannot be kept."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        # Written anew without escapes, a pair of surrogates is one character, and a half that is left has no partner.
        plain = json.dumps(value, ensure_ascii=False) if _ESCAPED.search(text) else ""
    except RecursionError:
        return "is nested too deep"
    except ValueError:
        return "is no JSON"
    if _HALF.search(plain):
        return SURROGATE
    return NUL if _NUL.search(plain) and not keeps_nul else ""


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _of_moment(moment: Any, path: str) -> Iterator[Violation]:
    if not (_FIRST_SECOND <= moment.seconds <= _LAST_SECOND and 0 <= moment.nanos < _NANOS):
        yield path, "is no moment of the years 1 to 9999"


def _of_span(span: Any, path: str) -> Iterator[Violation]:
    seconds, nanos = span.seconds, span.nanos
    if abs(seconds) > _LONGEST or abs(nanos) >= _NANOS or seconds * nanos < 0:
        yield path, "is no span of at most 10,000 years whose seconds and nanos have one sign"


# Messages whose fields mean something together alone.
_OF_WHOLE = {"google.protobuf.Timestamp": _of_moment, "google.protobuf.Duration": _of_span}
