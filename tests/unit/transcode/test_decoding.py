"""JSON as messages: the defaults, every option, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from letta_transcode.mapping.codecs import Codecs
from letta_transcode.mapping.decoders import masker, partial
from letta_transcode.mapping.values import MAX_PROBLEMS, Problems
from tests.unit.transcode.toy import codecs_of, message, toy_catalog

CODECS = Codecs(toy_catalog())


def decode(name: str, value: Any) -> tuple[Any, Problems]:
    made, problems = message(name), []
    CODECS.decoders.message(f"toy.v1.{name}")(value, made, (), problems, 0)
    return made, problems


def accepted(name: str, value: Any) -> Any:
    made, problems = decode(name, value)
    assert not problems
    return made


def refused(name: str, value: Any) -> list[tuple[str, tuple[Any, ...]]]:
    _, problems = decode(name, value)
    assert problems
    repr(problems).encode()
    return [(each["type"], each["loc"]) for each in problems]


def test_values_are_read_from_their_json_form():
    made = accepted(
        "Plain",
        {
            **{"text": "t", "flag": True, "small": -1, "big": "9007199254740993", "huge": 2**64 - 1, "number": 1},
            **{"single": "0.5", "data": "_-8", "color": "Blue!", "tags": ["a"], "numbers": ["1", 2, 3.0]},
            **{"labels": {"k": "v"}, "children": {"7": {"text": "x"}}, "child": {}, "list": [{}, {"small": 3}]},
            **{"maybe": "", "at": "2026-01-02T03:04:05.678901+01:00", "lasts": 1.5, "any_object": {"a": [1]}},
            **{"any_value": None, "wrapped": "w", "paths": "a,b", "nothing": {}, "colors": ["dark_red"]},
            **{"flags": {"true": 1}, "picked_number": 0, "unheard_of": {"is": "skipped"}},
        },
    )

    assert (made.text, made.flag, made.small, made.big, made.huge) == ("t", True, -1, 2**53 + 1, 2**64 - 1)
    assert (made.number, made.single, made.data, made.color) == (1.0, 0.5, b"\xff\xef", 2)
    assert (list(made.tags), list(made.numbers), dict(made.labels)) == (["a"], [1, 2, 3], {"k": "v"})
    assert made.children[7].text == "x"
    assert made.HasField("child")
    assert made.list[1].small == 3
    assert made.HasField("maybe")
    assert made.at.ToJsonString() == "2026-01-02T02:04:05.678901Z"
    assert (made.lasts.seconds, made.lasts.nanos) == (1, 500_000_000)
    assert (made.wrapped.value, list(made.paths.paths), list(made.colors)) == ("w", ["a", "b"], [1])
    assert made.HasField("nothing")
    assert not made.HasField("any_value")
    assert made.flags[True] == 1.0
    assert made.WhichOneof("pick") == "picked_number"


@pytest.mark.parametrize(
    ("value", "kind", "loc"),
    [
        ({"text": 1}, "string_type", ("text",)),
        ({"flag": "true"}, "bool_type", ("flag",)),
        ({"small": 2**31}, "int_out_of_range", ("small",)),
        ({"small": "x"}, "int_parsing", ("small",)),
        ({"small": True}, "int_type", ("small",)),
        ({"small": 1.5}, "int_from_float", ("small",)),
        ({"big": 10**40}, "int_out_of_range", ("big",)),
        ({"big": 1e300}, "int_out_of_range", ("big",)),
        ({"huge": -1}, "int_out_of_range", ("huge",)),
        ({"number": "NaN"}, "finite_number", ("number",)),
        ({"number": 10**400}, "finite_number", ("number",)),
        ({"number": []}, "float_type", ("number",)),
        ({"single": 1e300}, "finite_number", ("single",)),
        ({"data": "é"}, "base64", ("data",)),
        ({"data": 1}, "string_type", ("data",)),
        ({"color": "pink"}, "enum", ("color",)),
        ({"color": 1}, "enum", ("color",)),
        ({"tags": "a"}, "list_type", ("tags",)),
        ({"tags": ["a", None]}, "string_type", ("tags", 1)),
        ({"numbers": [1, "x"]}, "int_parsing", ("numbers", 1)),
        ({"labels": []}, "dict_type", ("labels",)),
        ({"labels": {"k": 1}}, "string_type", ("labels", "k")),
        ({"children": {"x": {}}}, "int_parsing", ("children", "x")),
        ({"flags": {"yes": 1}}, "bool_parsing", ("flags", "yes")),
        ({"child": []}, "dict_type", ("child",)),
        ({"child": {"child": {"text": 1}}}, "string_type", ("child", "child", "text")),
        ({"list": [{}, {"text": 1}]}, "string_type", ("list", 1, "text")),
        ({"at": "yesterday"}, "datetime_parsing", ("at",)),
        ({"at": "0001-01-01T00:00:00+10:00"}, "datetime_parsing", ("at",)),
        ({"at": 5}, "datetime_type", ("at",)),
        ({"lasts": "long"}, "time_delta_parsing", ("lasts",)),
        ({"lasts": "315576000001s"}, "time_delta_range", ("lasts",)),
        ({"lasts": "-999999999999.5s"}, "time_delta_range", ("lasts",)),
        ({"lasts": 315_576_000_001.5}, "time_delta_range", ("lasts",)),
        ({"any_object": []}, "value_error", ("any_object",)),
        ({"paths": 1}, "string_type", ("paths",)),
        ({"wrapped": 1}, "string_type", ("wrapped",)),
        ({"picked_text": "a", "picked_number": 1}, "union_keys", ()),
        ([], "dict_type", ()),
        (None, "dict_type", ()),
        ("text", "dict_type", ()),
    ],
)
def test_wrong_values_are_named(value: Any, kind: str, loc: tuple[Any, ...]):
    assert refused("Plain", value) == [(kind, loc)]


def test_all_that_is_wrong_is_listed_up_to_a_limit():
    assert len(refused("Plain", {"text": 1, "flag": 2, "tags": [1, 2, 3]})) == 5
    assert len(refused("Plain", {"tags": list(range(1000))})) == MAX_PROBLEMS


def test_long_input_is_not_repeated():
    _, problems = decode("Plain", {"small": "x" * 10_000, "number": {"a": "secret"}})

    assert len(repr(problems)) < 600
    assert "secret" not in repr(problems)


@pytest.mark.parametrize("depth", [200, 900])
def test_deep_nesting_is_refused(depth: int):
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"child": value}

    assert [kind for kind, _ in refused("Plain", value)] == ["recursion_limit"]


def test_nesting_within_the_limit_survives_the_wire():
    value: dict[str, Any] = {"text": "x"}
    for _ in range(70):
        value = {"child": value}

    made = accepted("Plain", value)

    assert type(made).FromString(made.SerializeToString()) == made


def test_field_options():
    made = accepted(
        "Mapped",
        {
            **{"metadata_": "r", "metadata": {"n": 2**70, "deep": [None, 1.0]}, "documents": [{"a": 1}, None, "s"]},
            **{"inner_number": 3, "deep": True, "needed": "n", "seconds": "2026-01-02T03:04:05+00:00", "level": "low"},
            **{"secret": "ignored", "class": "k", "names": None, "left_out_list": ["x"]},
        },
    )

    assert made.renamed == "r"
    assert json.loads(made.metadata) == {"n": 2**70, "deep": [None, 1.0]}
    assert list(made.documents) == ['{"a":1}', "null", '"s"']
    assert (made.inner.inner_number, made.inner.deeper.deep) == (3, True)
    assert (made.needed, made.limit, made.soft_limit, made.secret) == ("n", 50, 7, "")
    assert (made.seconds.seconds, made.level, getattr(made, "class")) == (1767323045, 1, "k")


def test_a_flattened_message_without_its_keys_stays_absent():
    assert not accepted("Mapped", {"needed": "n"}).HasField("inner")


def test_a_default_is_taken_when_the_key_is_missing_and_null_is_no_number():
    made = accepted("Mapped", {"needed": "n", "limit": None, "soft_limit": None})

    assert made.limit == 50
    assert not made.HasField("soft_limit")


def test_a_required_key_is_missed():
    assert refused("Mapped", {}) == [("missing", ("needed",))]
    assert refused("Mapped", {"needed": None}) == [("none_not_allowed", ("needed",))]


def test_a_tagged_union_is_chosen_by_its_tag():
    assert accepted("Note", {"message_type": "system_message", "text": "t"}).system_message.text == "t"
    assert accepted("Part", {"type": "image", "url": "u"}).picture.url == "u"
    assert accepted("Part", {"text": "t"}).text.text == "t"
    assert accepted("Note", {"id": "n"}).WhichOneof("note") is None


def test_a_wrong_tag_is_refused():
    assert refused("Note", {"message_type": "nope"}) == [("union_tag_invalid", ())]
    assert refused("Note", {"message_type": 7}) == [("union_tag_invalid", ())]
    assert refused("Event", {}) == [("union_tag_not_found", ())]
    assert refused("Part", {"type": "image", "url": 1}) == [("string_type", ("image", "url"))]


def test_a_union_inside_a_union_is_chosen_by_the_inner_tags():
    made = accepted("Event", {"message_type": "said_message", "content": "hi", "id": "n"})

    assert (made.note.id, made.note.said_message.text) == ("n", "hi")


@pytest.mark.parametrize(
    ("value", "member"),
    [("", "text"), ([{"text": "a"}], "parts"), ([], "parts"), (True, "yes"), (1, "number"), ({"text": "o"}, "object")],
)
def test_an_untagged_union_is_chosen_by_the_kind_of_value(value: Any, member: str):
    assert accepted("Said", {"content": value}).WhichOneof("content") == member


def test_an_untagged_union_refuses_other_kinds():
    codecs = codecs_of(
        "message M { oneof o { option (letta.jsonmap.v1.oneof).untagged = true; string a = 1; bool b = 2; } }"
    )
    problems: Problems = []

    codecs.decoders.message("given.v1.M")({"o": [1]}, codecs.catalog.message_class("given.v1.M")(), (), problems, 0)

    assert [(each["type"], each["loc"]) for each in problems] == [("union_type", ("o",))]


@pytest.mark.parametrize(
    ("value", "member"),
    [({"radius": 1}, "circle"), ({"side": 1}, "square"), ({"edge": 1}, "square"), ({"text": "t"}, "other")],
)
def test_a_union_by_keys_is_chosen_by_the_keys_present(value: Any, member: str):
    assert accepted("Shape", value).WhichOneof("shape") == member


def test_objects_of_an_untagged_union_are_told_apart_by_keys():
    assert accepted("Anything", {"radius": 1}).WhichOneof("anything") == "circle"
    assert accepted("Anything", {"side": 1}).WhichOneof("anything") == "square"
    assert accepted("Anything", [1]).json == "[1]"
    assert refused("Anything", {"neither": 1}) == [("union_keys", ())]


def test_a_mask_names_what_the_keys_set_or_clear():
    plan = partial(CODECS.planner.plan("toy.v1.Item"))
    body = {"description": None, "tags": [], "inner_text": "i", "deep": None, "said": None, "unknown": 1, "id": "kept"}
    made, problems = message("Item"), []

    CODECS.decoders.plan(plan)(body, made, (), problems, 0)

    assert not problems
    assert masker(plan)(body, made) == ["description", "tags", "inner.inner_text", "inner.deeper.deep", "said"]
    assert made.limit == 0


def test_a_mask_names_the_member_of_a_union_or_all_of_them():
    plan = CODECS.planner.plan("toy.v1.Said")
    made = accepted("Said", {"content": True})

    assert masker(plan)({"content": True}, made) == ["yes"]
    assert masker(plan)({"content": None}, message("Said")) == ["text", "parts", "yes", "number", "object"]
    assert masker(plan)({}, message("Said")) == []
    assert masker(CODECS.planner.plan("toy.v1.Note"))(
        {"message_type": "system_message"}, accepted("Note", {"message_type": "system_message"})
    ) == ["system_message"]


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KEYS = [field.name for field in toy_catalog().message("toy.v1.Plain").fields]


@unhurried
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5))
def test_no_json_breaks_a_decoder(value: dict[str, Any]):
    made, problems = message("Plain"), []
    try:
        CODECS.decoders.message("toy.v1.Plain")(value, made, (), problems, 0)
    except UnicodeError:
        return
    repr(problems).encode()
    made.SerializeToString()


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@st.composite
def plains(draw: st.DrawFn, depth: int = 2) -> Any:
    value = message("Plain")
    value.text, value.flag, value.data = draw(TEXT), draw(st.booleans()), draw(st.binary(max_size=6))
    value.small, value.big = draw(st.integers(-(2**31), 2**31 - 1)), draw(st.integers(-(2**63), 2**63 - 1))
    value.huge = draw(st.integers(0, 2**64 - 1))
    value.number = draw(st.floats(allow_nan=False, allow_infinity=False))
    value.single = draw(st.floats(allow_nan=False, allow_infinity=False, width=32))
    value.color = draw(st.sampled_from([0, 1, 2]))
    value.tags.extend(draw(st.lists(TEXT, max_size=3)))
    value.labels.update(draw(st.dictionaries(TEXT, TEXT, max_size=2)))
    if draw(st.booleans()):
        value.maybe, value.maybe_number = draw(TEXT), draw(st.integers(-(2**63), 2**63 - 1))
        value.wrapped.value = draw(TEXT)
        value.at.seconds = draw(st.integers(-62_135_596_800, 253_402_300_799))
        value.at.nanos = draw(st.integers(0, 999_999)) * 1000
        value.lasts.nanos = draw(st.integers(-999_999_999, 999_999_999))
        value.picked_number = draw(st.integers(0, 5))
        value.any_object.update({"a": draw(TEXT)})
    if depth and draw(st.booleans()):
        value.child.CopyFrom(draw(plains(depth=depth - 1)))
        value.list.append(draw(plains(depth=depth - 1)))
        value.children[draw(st.integers(-9, 9))].CopyFrom(draw(plains(depth=0)))
    return value


@unhurried
@given(plains())
def test_what_was_written_is_read_back(value: Any):
    text = json.dumps(CODECS.encoders.message("toy.v1.Plain")(value))
    made, problems = decode("Plain", json.loads(text))

    assert not problems
    assert made == value


@unhurried
@given(plains())
def test_canonical_values_agree_with_the_protobuf_library(value: Any):
    ours = CODECS.encoders.message("toy.v1.Plain")(value)
    theirs = json_format.MessageToDict(value, preserving_proto_field_name=True, descriptor_pool=toy_catalog().pool)

    for key in ("text", "flag", "small", "data", "number", "tags", "labels", "maybe", "wrapped", "any_object", "lasts"):
        assert not theirs.get(key) or ours[key] == theirs[key]
    for key in ("big", "huge", "maybe_number"):
        assert key not in theirs or str(ours[key]) == theirs[key]
    assert "single" not in theirs or ours["single"] == pytest.approx(theirs["single"], rel=1e-6)
