"""What a call is for: an enum on the wire, a word in the database."""

from __future__ import annotations

from letta.llm.v1 import generation_service_pb2 as pb

_PREFIX = "CALL_PURPOSE_"
_NUMBERS = {name.removeprefix(_PREFIX).lower(): number for name, number in pb.CallPurpose.items() if number}
_WORDS = {number: word for word, number in _NUMBERS.items()}


def purpose_of(word: str) -> pb.CallPurpose.ValueType:
    """Return the purpose of a word; none for a word of another release."""
    return _NUMBERS.get(word, pb.CALL_PURPOSE_UNSPECIFIED)


def purpose_word(purpose: pb.CallPurpose.ValueType) -> str:
    """Return the word of a purpose; empty for none."""
    return _WORDS.get(purpose, "")
