"""Makes text of bytes, whatever their encoding; bytes that are no text are told from it."""

from __future__ import annotations

import codecs

from letta_documents.inside.faults import Unsupported
from letta_documents.inside.parsers import charset_normalizer

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 1 << 16
# Of text in Latin letters nearly every second byte of UTF-16 is zero; of other text those of spaces and line ends are.
_MANY, _FEW = 0.3, 0.02
_CONTROLS = bytes(set(range(32)) - {9, 10, 11, 12, 13, 27}) + b"\x7f"
_MOST_CONTROLS = 0.02
# Which of several encodings that fit alike is meant, as text in it is by far the most common.
_USUAL = ("cp1252", "cp1251")
_SAME_CHAOS, _SAME_COHERENCE = 0.02, 0.1
_MOSTLY_ASCII = 0.25


def decode(data: bytes, stated: str = "") -> str:
    """Return the text of bytes; the `stated` encoding counts where they are neither marked nor UTF-8.

    Raises Unsupported when they are none.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    wide = _wide(data)
    if wide:
        return data.decode(wide, errors="replace")
    _require_text(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _guessed(data, stated)


def _wide(data: bytes) -> str:
    """Say which UTF-16 bytes without a mark are in; nothing when they are in none."""
    sample = data[:_SAMPLE]
    if len(sample) < 4 or len(data) % 2:
        return ""
    half = len(sample) // 2
    even, odd = sample[0::2].count(0) / half, sample[1::2].count(0) / half
    if odd > _MANY and even < _FEW:
        return "utf-16-le"
    if even > _MANY and odd < _FEW:
        return "utf-16-be"
    return ""


def _require_text(data: bytes) -> None:
    for place in (0, max(0, len(data) // 2 - _SAMPLE // 2), max(0, len(data) - _SAMPLE)):
        sample = data[place : place + _SAMPLE]
        if len(sample) - len(sample.translate(None, _CONTROLS)) > max(4, _MOST_CONTROLS * len(sample)):
            raise Unsupported("it is no text, and no other format that is read here")


def _guessed(data: bytes, stated: str) -> str:
    text = data.decode(errors="replace")
    broken = text.count("\ufffd")
    # Text in UTF-8 with some bytes broken has more characters beyond ASCII than broken ones; in others hardly any.
    if len(text.encode()) - len(text) - 2 * broken > 4 * broken:
        return text
    if stated:
        try:
            return data.decode(stated)
        except (LookupError, ValueError):
            pass
    return _detected(data)


def _detected(data: bytes) -> str:
    sample = data[:_SAMPLE]
    found = list(charset_normalizer.from_bytes(sample)) if charset_normalizer is not None else []
    if not found or (found[0].coherence == 0 and _beyond_ascii(sample) < _MOSTLY_ASCII):
        return data.decode(_USUAL[0], errors="replace")
    best = found[0]
    alike = [
        each.encoding
        for each in found
        if each.chaos <= best.chaos + _SAME_CHAOS and each.coherence >= best.coherence - _SAME_COHERENCE
    ]
    encoding = next((each for each in _USUAL if each in alike), best.encoding)
    return data.decode(encoding, errors="replace")


def _beyond_ascii(data: bytes) -> float:
    return 1 - len(data.decode("ascii", errors="ignore")) / len(data)
