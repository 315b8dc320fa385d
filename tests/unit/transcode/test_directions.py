"""Keys that go in one direction alone, and keys of a flattened message that stand elsewhere."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from letta_transcode.mapping.decoders import masker, partial
from letta_transcode.mapping.plans import MappingError
from letta_transcode.mapping.schemas import Schemas, body_of
from letta_transcode.routing.bindings import Binding, RequestParts
from letta_transcode.routing.templates import parse
from tests.unit.transcode.toy import codecs_of

SOURCE = """
message Older {
  string config = 1;
  repeated string texts = 2 [(google.api.field_behavior) = OUTPUT_ONLY];
  optional int32 most = 3 [(letta.jsonmap.v1.field) = {write_only: true, aliases: {key: "max"}}];
}
message Thing {
  string id = 1 [(google.api.field_behavior) = OUTPUT_ONLY];
  string kind = 2 [(google.api.field_behavior) = IMMUTABLE];
  Older older = 3 [(letta.jsonmap.v1.field) = {flatten: true, flattened_keys: {key: "texts", before: "last"}}];
  string name = 4;
  string last = 5;
}
message Change {
  Thing thing = 1;
  google.protobuf.FieldMask mask = 2 [(letta.jsonmap.v1.field).mask = true];
}
"""
CODECS = codecs_of(SOURCE)
NEW = CODECS.catalog.message_class("given.v1.Thing")


def thing(**fields: Any) -> Any:
    return NEW(**fields)


def read(value: Any) -> Any:
    message, problems = NEW(), []
    CODECS.decoders.message("given.v1.Thing")(value, message, (), problems, 0)
    assert not problems
    return message


def test_a_key_of_requests_alone_is_not_written_and_a_moved_one_stands_where_it_is_said():
    message = thing(id="1", kind="k", older={"config": "c", "texts": ["t"], "most": 3}, name="n", last="z")

    written = orjson.dumps(CODECS.encoders.message("given.v1.Thing")(message)).decode()

    assert written == '{"id":"1","kind":"k","config":"c","name":"n","texts":["t"],"last":"z"}'


def test_what_is_output_only_is_not_read_whatever_it_holds():
    found = read({"id": 5, "kind": "k", "config": "c", "texts": {}, "most": 3, "name": "n"})

    assert found == thing(kind="k", older={"config": "c", "most": 3}, name="n")


def test_a_masked_update_reads_nothing_that_no_update_changes():
    plan, message, problems = partial(CODECS.planner.plan("given.v1.Thing")), NEW(), []
    body = {"id": 5, "kind": 6, "texts": 7, "max": 8, "last": None}

    CODECS.decoders.plan(plan)(body, message, (), problems, 0)

    assert not problems
    assert message == thing(older={"most": 8})
    assert masker(plan)(body, message) == ["older.most", "last"]


def test_documents_say_the_direction():
    schema = Schemas().object(CODECS, CODECS.planner.plan("given.v1.Thing"))["properties"]

    assert (schema["id"]["readOnly"], schema["most"]["writeOnly"]) == (True, True)
    assert not {"readOnly", "writeOnly"} & schema["name"].keys()


def test_a_key_may_mean_one_thing_in_requests_and_another_one_in_answers():
    codecs = codecs_of("""
message Secret { string name = 1; }
message Holder {
  repeated Secret secrets = 1 [
    (letta.jsonmap.v1.field) = {aliases: {key: "old", before: "secrets"}}, (google.api.field_behavior) = OUTPUT_ONLY
  ];
  map<string, string> values = 2 [
    (letta.jsonmap.v1.field) = {name: "secrets", aliases: {key: "old"}, write_only: true}
  ];
}
message Make { Holder holder = 1 [(letta.jsonmap.v1.field).flatten = true]; repeated string names = 2; }
""")
    new = codecs.catalog.message_class("given.v1.Make")
    message, problems = new(), []

    codecs.decoders.message("given.v1.Make")({"old": {"a": "1"}, "names": ["n"]}, message, (), problems, 0)

    assert (message, problems) == (new(holder={"values": {"a": "1"}}, names=["n"]), [])
    message.holder.secrets.add(name="a")
    written = orjson.dumps(codecs.encoders.message("given.v1.Make")(message)).decode()
    assert written == '{"old":[{"name":"a"}],"secrets":[{"name":"a"}],"names":["n"]}'
    plan = codecs.planner.plan("given.v1.Make")
    both, body = Schemas().object(codecs, plan)["properties"], Schemas().object(codecs, body_of(plan))["properties"]
    assert [each["type"] for each in both["secrets"]["anyOf"]] == ["array", "object"]
    assert body["secrets"]["type"] == "object"


def test_where_a_key_stands_is_told_as_the_request_has_it():
    binding = Binding(CODECS, "given.v1.Thing", parse("/things"), "*")
    assert binding.read(RequestParts([], {}, {}, body={"max": 2})).older.most == 2

    assert binding.locate(("older", "most")) == ("body", "most")
    for body in ("thing", "*"):
        assert Binding(CODECS, "given.v1.Change", parse("/things"), body).locate(()) == ("body",)
    assert Binding(CODECS, "given.v1.Change", parse("/things"), "thing").locate(("thing", "older", "most")) == (
        "body",
        "most",
    )


def test_keys_of_a_flattened_message_are_query_parameters_too():
    binding = Binding(CODECS, "given.v1.Thing", parse("/things"), "")

    assert binding.read(RequestParts([], {"max": ["2"]}, {})).older.most == 2
    assert binding.locate(("older", "most")) == ("query", "most")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ('flattened_keys: {key: "b"}', "no key 'b'"),
        ('flattened_keys: {key: "a", before: "x"}', "before 'x'"),
    ],
)
def test_a_place_that_does_not_exist_is_named(options: str, part: str):
    field = f"In in = 1 [(letta.jsonmap.v1.field) = {{flatten: true, {options}}}];"
    source = f"message M {{ {field} }} message In {{ string a = 1; }}"

    with pytest.raises(MappingError, match=part):
        codecs_of(source).encoders.message("given.v1.M")
