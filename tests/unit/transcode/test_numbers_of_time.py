"""Durations and moments that are whole numbers in JSON."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from letta_transcode.mapping.schemas import Schemas
from tests.unit.transcode.toy import codecs_of

SOURCE = """
import "google/protobuf/duration.proto";
message Times {
  google.protobuf.Duration nanos = 1 [(letta.jsonmap.v1.field).duration_unit = DURATION_UNIT_NANOS];
  google.protobuf.Duration millis = 2 [(letta.jsonmap.v1.field).duration_unit = DURATION_UNIT_MILLIS];
  google.protobuf.Duration seconds = 3 [(letta.jsonmap.v1.field).duration_unit = DURATION_UNIT_SECONDS];
  google.protobuf.Timestamp at = 4 [(letta.jsonmap.v1.field).timestamp_format = TIMESTAMP_FORMAT_NANOS];
  repeated google.protobuf.Duration laps = 5 [(letta.jsonmap.v1.field).duration_unit = DURATION_UNIT_MILLIS];
}
"""
CODECS = codecs_of(SOURCE)
KEYS = ("nanos", "millis", "seconds", "at")
LONGEST = 315_576_000_000


def read(value: Any) -> tuple[Any, list[Any]]:
    message, problems = CODECS.catalog.message_class("given.v1.Times")(), []
    CODECS.decoders.message("given.v1.Times")(value, message, (), problems, 0)
    return message, problems


def written(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(orjson.dumps(CODECS.encoders.message("given.v1.Times")(message)))
    return found


@pytest.mark.parametrize("number", [0, 1, 999, 1_000, 12_345_678_901, -1, -1_500, -12_345_678_901])
def test_what_is_read_is_written(number: int):
    sent = {**dict.fromkeys(KEYS, number), "laps": [number, 7]}

    message, problems = read(sent)

    assert (written(message), problems) == (sent, [])


def test_units_are_what_they_say():
    message, _ = read({"nanos": -1_500_000_001, "millis": 1_500, "seconds": 90, "at": -1})

    assert (message.nanos.seconds, message.nanos.nanos) == (-1, -500_000_001)
    assert (message.millis.seconds, message.millis.nanos) == (1, 500_000_000)
    assert (message.seconds.seconds, message.seconds.nanos) == (90, 0)
    assert (message.at.seconds, message.at.nanos) == (-1, 999_999_999)


def test_what_is_finer_than_the_unit_is_cut_off():
    message, _ = read({"nanos": 0})
    for name, seconds, nanos in (("millis", 1, 1_999_999), ("seconds", -1, -999_999_999)):
        getattr(message, name).seconds, getattr(message, name).nanos = seconds, nanos

    assert (written(message)["millis"], written(message)["seconds"]) == (1_001, -1)


def test_absent_is_null():
    assert written(read({})[0]) == {**dict.fromkeys(KEYS), "laps": []}
    assert not read({"nanos": None, "at": None})[0].HasField("nanos")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["1.5s", "x", 1.5, True, {}, [], 2**63])
def test_what_is_no_whole_number_is_refused(key: str, value: Any):
    _, problems = read({key: value})

    assert [each["loc"] for each in problems] == [(key,)]


def test_the_longest_duration_is_the_end():
    assert read({"seconds": LONGEST, "millis": -LONGEST * 1_000})[1] == []
    assert [each["loc"] for each in read({"seconds": LONGEST + 1, "millis": LONGEST * 1_000 + 1})[1]] == [
        ("millis",),
        ("seconds",),
    ]


def test_documents_say_integer():
    properties = Schemas().object(CODECS, CODECS.planner.plan("given.v1.Times"))["properties"]
    assert {properties[key]["type"][0] for key in KEYS} == {"integer"}
