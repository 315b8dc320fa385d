"""Messages as JSON: the defaults and every option."""

from __future__ import annotations

import datetime
import math
import random
import struct
from decimal import Decimal
from typing import Any

import orjson
import pytest

from letta_transcode.http.responses import dump
from letta_transcode.mapping import values
from letta_transcode.mapping.codecs import Codecs
from letta_transcode.mapping.plans import MappingError
from letta_transcode.mapping.values import shortest
from tests.unit.transcode.toy import codecs_of, message, toy_catalog


def encode(value: Any) -> Any:
    encoder = Codecs(toy_catalog()).encoders.message(value.DESCRIPTOR.full_name)
    return orjson.loads(orjson.dumps(encoder(value)))


def test_single_floats_are_written_as_their_shortest_decimals_however_often():
    encoder = Codecs(toy_catalog()).encoders.message(message("Plain").DESCRIPTOR.full_name)
    texts = ["0.1", "-0.000123", "-4.172325e-6", "0.0", "-0.0", "1e+30", "0.30078125", "null"]
    values = [float(text.replace("null", "nan")) for text in texts]
    for _ in range(2):
        written = []
        for number in values:
            value = message("Plain")
            value.single = number
            written.append(orjson.dumps(encoder(value)["single"]).decode())
        assert written == texts


@pytest.mark.parametrize("installed", [True, False])
def test_lists_of_single_floats_are_written_as_their_shortest_decimals(installed, monkeypatch):
    if not installed:
        monkeypatch.setattr(values, "_numpy", lambda: None)
    codecs = codecs_of(
        "message Vectors { repeated float some = 1;"
        " repeated float none = 2 [(letta.jsonmap.v1.field).empty_as_null = true];"
        " repeated float same = 3 [(letta.jsonmap.v1.field).empty_as_null = true]; }"
    )
    bits = [*random.Random(7).choices(range(1 << 32), k=3000), 0, 1 << 31, 1, 0x800000, 0x7F800000, 0x7FC00000]
    floats = struct.unpack(f"{len(bits)}f", struct.pack(f"{len(bits)}I", *bits))
    vectors = codecs.catalog.message_class("given.v1.Vectors")(some=floats, same=floats)
    written = dump(codecs.encoders.message("given.v1.Vectors")(vectors))
    numbers = [shortest(value) if math.isfinite(value) else None for value in floats]
    assert orjson.loads(written) == {"some": numbers, "none": None, "same": numbers}


def test_the_shortest_decimal_is_the_same_float_and_no_digit_of_it_can_be_left_out():
    for bits in (*range(1, 3000), *random.Random(8).choices(range(0x800000, 0x7F800000), k=3000)):
        value = struct.unpack("f", struct.pack("I", bits))[0]
        digits = len(Decimal(repr(shortest(value))).normalize().as_tuple().digits)
        assert struct.pack("f", shortest(value)) == struct.pack("I", bits)
        assert digits == 1 or struct.pack("f", float(f"{value:.{digits - 1}g}")) != struct.pack("I", bits)


def test_a_moment_may_be_a_number_of_seconds():
    codecs = codecs_of(
        "message Made { google.protobuf.Timestamp at = 1"
        " [(letta.jsonmap.v1.field).timestamp_format = TIMESTAMP_FORMAT_UNIX]; }"
    )
    made = codecs.catalog.message_class("given.v1.Made")()
    made.at.FromJsonString("2026-01-02T03:04:05.678901Z")
    assert codecs.encoders.message("given.v1.Made")(made) == {"at": 1767323045}


def test_absent_values_are_null_and_empty_ones_are_written():
    assert encode(message("Plain")) == {
        **{"text": "", "flag": False, "small": 0, "big": 0, "huge": 0, "number": 0.0, "single": 0.0, "data": ""},
        **{"color": None, "tags": [], "numbers": [], "labels": {}, "children": {}, "child": None, "list": []},
        **{"maybe": None, "maybe_number": None, "maybe_color": None, "at": None, "lasts": None, "any_object": None},
        **{"any_value": None, "wrapped": None, "paths": None, "nothing": None, "colors": [], "flags": {}},
        **{"picked_text": None, "picked_number": None, "picked_child": None},
    }


def test_values_have_their_json_form():
    value = message("Plain")
    value.big, value.huge, value.number, value.single, value.data = -(2**63), 2**64 - 1, 1.5, 0.1, b"\xff\xfe"
    value.color, value.maybe, value.maybe_number = 1, "", 0
    value.colors.extend([2, 0, 9])
    value.children[-5].text = "five"
    value.flags[True] = 2.5
    value.at.FromJsonString("2026-01-02T03:04:05.678901Z")
    value.lasts.FromJsonString("-1.5s")
    value.any_object["a"] = 1
    value.any_value.string_value = "x"
    value.wrapped.value = ""
    value.paths.paths.extend(["a.b", "c"])
    value.nothing.SetInParent()
    value.picked_number = 0

    found = encode(value)

    assert (found["big"], found["huge"], found["number"], found["single"]) == (-(2**63), 2**64 - 1, 1.5, 0.1)
    assert (found["data"], found["color"], found["colors"]) == ("//4=", "dark_red", ["Blue!", None, 9])
    assert (found["maybe"], found["maybe_number"]) == ("", 0)
    assert found["children"]["-5"]["text"] == "five"
    assert (found["flags"], found["at"], found["lasts"]) == ({"true": 2.5}, "2026-01-02T03:04:05.678901Z", "-1.500s")
    assert (found["any_object"], found["any_value"], found["wrapped"]) == ({"a": 1.0}, "x", "")
    assert (found["paths"], found["nothing"], found["picked_number"]) == ("a.b,c", {}, 0)


def test_numbers_that_json_lacks_are_null():
    value = message("Plain")
    value.number, value.single = float("nan"), float("inf")

    assert (encode(value)["number"], encode(value)["single"]) == (None, None)


def test_a_moment_outside_of_the_calendar_is_null():
    value = message("Plain")
    value.at.seconds = 10**15

    assert encode(value)["at"] is None


def test_field_options():
    value = message("Mapped")

    assert encode(value) == {
        **{"metadata_": "", "metadata": None, "documents": [], "inner_text": "", "inner_number": None, "deep": False},
        **{"needed": "", "limit": 0, "soft_limit": None, "seconds": None, "names": None, "blank": None, "level": None},
        "class": "",
    }
    value.metadata = '{"big": 123456789012345678901234567890}'
    value.documents.extend(['["a"]', "", "no json"])
    value.inner.inner_text, value.inner.inner_number, value.inner.deeper.deep = "in", 0, True
    value.left_out, value.left_out_when_absent, value.secret = "", "", "never seen"
    value.seconds.FromDatetime(datetime.datetime(2026, 1, 2, 3, 4, 5, 999))
    value.names.append("n")
    value.blank, value.level = "b", 1
    setattr(value, "class", "k")
    value.left_out_list.append("x")

    found = encode(value)

    assert '"big": 123456789012345678901234567890' in str(
        orjson.dumps(Codecs(toy_catalog()).encoders.message("toy.v1.Mapped")(value))
    )
    assert found["documents"] == [["a"], None, "no json"]
    assert (found["inner_text"], found["inner_number"], found["deep"]) == ("in", 0, True)
    assert "left_out" not in found
    assert (found["left_out_when_absent"], found["left_out_list"]) == ("", ["x"])
    assert "secret" not in found
    assert found["seconds"] == "2026-01-02T03:04:05+00:00"
    assert (found["names"], found["blank"], found["level"], found["class"]) == (["n"], "b", "low", "k")


def test_an_unknown_number_of_an_enum_that_nulls_is_null():
    value = message("Mapped")
    value.level = 77

    assert encode(value)["level"] is None


def test_a_tagged_union_stands_inline_with_its_tag():
    value = message("Note")
    assert encode(value) == {"id": "", "date": None}

    value.system_message.text = "be kind"

    assert encode(value) == {"id": "", "message_type": "system_message", "text": "be kind", "date": None}


def test_the_tag_wins_over_a_field_of_its_name():
    value = message("Part")
    value.picture.url, value.picture.type = "u", "mine"

    assert encode(value) == {"type": "image", "url": "u"}


def test_a_union_inside_a_union_keeps_its_own_tag():
    value = message("Event")
    assert encode(value) is None

    value.note.said_message.text = "hi"

    assert encode(value) == {"id": "", "message_type": "said_message", "content": "hi", "date": None}
    value.stop_reason.stop_reason = "end_turn"
    assert encode(value) == {"message_type": "stop_reason", "stop_reason": "end_turn"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"text": ""}, ""),
        ({"parts": {"parts": [{"text": {"text": "a"}}]}}, [{"type": "text", "text": "a"}]),
        ({"parts": {}}, []),
        ({"yes": False}, False),
        ({"number": 2.5}, 2.5),
        ({"object": {"text": "o"}}, {"text": "o"}),
    ],
)
def test_an_untagged_union_is_its_value(fields: dict[str, Any], expected: Any):
    value = type(message("Said"))(**fields)

    assert encode(value) == {"content": expected}


def test_a_union_by_keys_is_its_member():
    value = message("Shape")
    assert encode(value) is None

    value.square.side = 2

    assert encode(value) == {"side": 2.0}


def test_the_event_name_of_a_streamed_member_is_no_part_of_the_json():
    value = message("Event")
    value.error_message.message = "m"

    assert encode(value) == {"message_type": "error_message", "message": "m"}


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (
            "message M { option (letta.jsonmap.v1.message).transparent = true; string a = 1; string b = 2; }",
            "one field",
        ),
        ("message M { string a = 1 [(letta.jsonmap.v1.field).flatten = true]; }", "single message"),
        ("message M { M m = 1 [(letta.jsonmap.v1.field).flatten = true]; }", "into itself"),
        ("message M { oneof o { option (letta.jsonmap.v1.oneof).discriminator = 't'; string a = 1; } }", "inline"),
        ("message M { int32 a = 1 [(letta.jsonmap.v1.field).default_json = '{']; }", "no JSON"),
        (
            "message N {} message M { oneof o { "
            "option (letta.jsonmap.v1.oneof) = {discriminator: 't' default_tag: 'x'}; N n = 1; } }",
            "default tag",
        ),
    ],
)
def test_options_that_contradict_each_other_are_named(source: str, part: str):
    codecs = codecs_of(source)

    with pytest.raises(MappingError, match=part):
        codecs.encoders.message("given.v1.M")


def test_a_failed_compilation_leaves_nothing_half_made():
    codecs = codecs_of(
        "message Good { Bad bad = 1; Good good = 2; } message Bad { Good good = 1; "
        "M m = 2; } message M { string a = 1 [(letta.jsonmap.v1.field).flatten = true]; }"
    )

    for _ in range(2):
        with pytest.raises(MappingError):
            codecs.encoders.message("given.v1.Good")
        with pytest.raises(MappingError):
            codecs.decoders.message("given.v1.Bad")
