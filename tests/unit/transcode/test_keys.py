"""Keys that stand for no field of their own: constants, and other keys of a field."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from letta_transcode.http.errors import HttpError
from letta_transcode.mapping.decoders import masker, partial
from letta_transcode.mapping.plans import MappingError
from letta_transcode.mapping.schemas import Schemas
from letta_transcode.routing.bindings import Binding, RequestParts
from letta_transcode.routing.templates import parse
from tests.unit.transcode.toy import codecs_of

SOURCE = """
message Thing {
  option (letta.jsonmap.v1.message) = {
    constants: [
      {key: "kind", json: "\\"thing\\"", before: "secrets"},
      {key: "links", json: "[{\\"a\\": null}]"},
      {key: "nothing", json: "null", before: "secrets"}
    ]
  };
  string id = 1;
  repeated string secrets = 2 [(letta.jsonmap.v1.field) = {
    empty_as_null: true
    aliases: [{key: "old_secrets"}, {key: "older_secrets", before: "secrets"}]
  }];
  optional string note = 3 [(letta.jsonmap.v1.field) = {omit_empty: true, aliases: [{key: "remark"}]}];
}
message Ask {
  int32 limit = 1 [(letta.jsonmap.v1.field) = {default_json: "50", aliases: {key: "max_items"}}];
  string name = 2 [(letta.jsonmap.v1.field) = {required: true, aliases: {key: "title"}}];
  Thing thing = 3;
}
message Outer {
  string first = 1;
  Thing thing = 2 [(letta.jsonmap.v1.field).flatten = true];
  string last = 3;
}
"""
CODECS = codecs_of(SOURCE)


def thing(**fields: Any) -> Any:
    return CODECS.catalog.message_class("given.v1.Thing")(**fields)


def written(message: Any) -> str:
    return orjson.dumps(CODECS.encoders.message(message.DESCRIPTOR.full_name)(message)).decode()


def read(value: Any, name: str = "Thing") -> Any:
    message, problems = CODECS.catalog.message_class(f"given.v1.{name}")(), []
    CODECS.decoders.message(f"given.v1.{name}")(value, message, (), problems, 0)
    assert not problems
    return message


def test_constants_and_other_keys_are_written_where_they_belong():
    assert written(thing(id="1", secrets=["s"], note="n")) == (
        '{"id":"1","older_secrets":["s"],"kind":"thing","nothing":null,"secrets":["s"],"note":"n","old_secrets":["s"],'
        '"remark":"n","links":[{"a":null}]}'
    )


def test_what_is_left_out_is_left_out_under_every_key():
    assert written(thing()) == (
        '{"id":"","older_secrets":null,"kind":"thing","nothing":null,"secrets":null,"old_secrets":null,'
        '"links":[{"a":null}]}'
    )


def test_a_flattened_message_keeps_its_constants_in_place():
    outer = CODECS.catalog.message_class("given.v1.Outer")(first="a", thing=thing(id="1"), last="z")
    keys = list(orjson.loads(written(outer)))
    assert keys == [
        *("first", "id", "older_secrets", "kind", "nothing", "secrets", "old_secrets", "links", "last"),
    ]


@pytest.mark.parametrize("key", ["secrets", "old_secrets", "older_secrets"])
def test_each_key_of_a_field_is_read(key: str):
    assert list(read({key: ["a"]}).secrets) == ["a"]


@pytest.mark.parametrize("own", [["new"], []])
def test_the_own_key_of_a_field_wins(own: list[str]):
    assert list(read({"old_secrets": ["old"], "secrets": own}).secrets) == own


def test_another_key_stands_in_for_null():
    assert list(read({"secrets": None, "old_secrets": ["old"]}).secrets) == ["old"]


def test_constants_are_never_read():
    assert read({"kind": 5, "nothing": {}, "links": "x", "id": "1"}) == thing(id="1")


def test_another_key_is_set_by_a_mask():
    plan = partial(CODECS.planner.plan("given.v1.Thing"))
    assert masker(plan)({"old_secrets": None, "remark": "r", "kind": "x"}, thing()) == ["secrets", "note"]


def ask(query: dict[str, list[str]]) -> Any:
    return Binding(CODECS, "given.v1.Ask", parse("/ask"), "").read(RequestParts([], query, {}))


def test_another_key_is_a_query_parameter_too():
    message = ask({"max_items": ["7"], "title": ["t"], "thing.remark": ["r"]})
    assert (message.limit, message.name, message.thing.note) == (7, "t", "r")


def test_a_default_holds_where_no_key_is_given():
    assert ask({"name": ["n"]}).limit == 50


def test_a_required_field_is_missed_under_its_own_key():
    with pytest.raises(HttpError) as refused:
        ask({})
    assert "('query', 'name')" in str(refused.value)
    assert "title" not in str(refused.value)


def test_documents_tell_of_both():
    schema = Schemas().object(CODECS, CODECS.planner.plan("given.v1.Thing"))["properties"]
    assert schema["kind"] == {"const": "thing"}
    assert schema["old_secrets"] == {**schema["secrets"], "deprecated": True}


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (
            'option (letta.jsonmap.v1.message) = {constants: {key: "a", json: "{"}}; string id = 1;',
            "constant a is no JSON",
        ),
        ('option (letta.jsonmap.v1.message) = {constants: {key: "a", json: "1", before: "x"}};', "before 'x'"),
        (
            "option (letta.jsonmap.v1.message) = {transparent: true, constants: {key: 'a', json: '1'}}; string id = 1;",
            "transparent",
        ),
        ('string id = 1 [(letta.jsonmap.v1.field) = {aliases: {key: "id"}}];', "'id' twice"),
    ],
)
def test_options_that_contradict_each_other_are_named(source: str, part: str):
    with pytest.raises(MappingError, match=part):
        codecs_of(f"message Wrong {{ {source} }}").encoders.message("given.v1.Wrong")
