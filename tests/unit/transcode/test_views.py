"""Views: another JSON of a method under one of its paths, by a message that reads the same bytes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from letta_transcode.descriptors.catalog import Catalog
from letta_transcode.mapping.codecs import Codecs
from letta_transcode.mapping.plans import MappingError
from letta_transcode.mapping.schemas import Schemas
from letta_transcode.routing.bindings import RequestParts
from letta_transcode.routing.openapi import Info, document
from letta_transcode.routing.operations import Operation
from letta_transcode.routing.routes import compile_peer, merge
from tests.unit.transcode.toy import codecs_of, compile_protos

SOURCE = """
syntax = "proto3";
package given.v1;
import "google/api/annotations.proto";
import "letta/jsonmap/v1/annotations.proto";
service Things {
  rpc Find(Ask) returns (Answer) {
    option (google.api.http) = {
      post: "/new"
      body: "*"
      response_body: "things"
      additional_bindings {post: "/old" body: "*" response_body: "things"}
    };
    option (letta.jsonmap.v1.method) = {
      success_status: 201
      views: {path: "/old" request: "given.v1.OldAsk" response: "given.v1.OldAnswer" success_status: 200}
    };
  }
}
enum State { STATE_UNSPECIFIED = 0; STATE_GOOD = 1; STATE_BAD = 2; }
enum Good {
  GOOD_UNSPECIFIED = 0;
  GOOD_YES = 1 [(letta.jsonmap.v1.value).json = "true"];
  GOOD_NO = 2 [(letta.jsonmap.v1.value).json = "false"];
}
message Ask { string name = 1; int32 limit = 2; }
message OldAsk { string title = 1; }
message Thing { string id = 1; string name = 2; State state = 3; }
message Answer { repeated Thing things = 1; }
message OldThing { Good good = 3; string title = 2; }
message OldAnswer { repeated OldThing things = 1 [(letta.jsonmap.v1.field).keyed_by = "title"]; }
"""


def routes_of(source: str = SOURCE) -> Any:
    return compile_peer("toy", Catalog(compile_protos(source=source), ["given.v1.Things"]))


def operations() -> dict[str, Operation]:
    return {each.template.text: each for each in routes_of().operations}


def answer(operation: Operation) -> str:
    codecs = routes_of().codecs
    things = [{"id": "1", "name": "a", "state": 1}, {"id": "2", "name": "b", "state": 2}]
    data = codecs.catalog.message_class("given.v1.Answer")(things=things).SerializeToString()
    return orjson.dumps(operation.write(operation.method.response.FromString(data))).decode()


def test_each_path_has_its_own_answer():
    found = operations()

    assert answer(found["/new"]) == ('[{"id":"1","name":"a","state":"good"},{"id":"2","name":"b","state":"bad"}]')
    assert answer(found["/old"]) == '{"a":{"good":true,"title":"a"},"b":{"good":false,"title":"b"}}'
    assert (found["/new"].status, found["/old"].status) == (201, 200)


def test_what_a_view_reads_is_the_request_of_the_method():
    found = operations()["/old"]

    sent = found.binding.read(RequestParts([], {}, {}, body={"title": "a", "limit": 5})).SerializeToString()

    read = routes_of().codecs.catalog.message_class("given.v1.Ask").FromString(sent)
    assert (read.name, read.limit) == ("a", 0)


def test_the_method_itself_is_called_with_its_own_messages():
    peer = routes_of()
    assert [each.request.DESCRIPTOR.name for each in peer.methods] == ["Ask"]
    assert operations()["/old"].method.path == "/given.v1.Things/Find"


def test_documents_show_the_view():
    made = document(merge([routes_of()]), Info("Toy", "1"))

    asked = made["paths"]["/old"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert asked["properties"].keys() == {"title"}
    assert made["components"]["schemas"]["Good"] == {"enum": [True, False]}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("message OldAsk { string title = 1; }", "message OldAsk { int64 title = 1; }", "no view of a field"),
        ("string title = 2; }", "string title = 9; }", "given.v1.OldThing.title is no view of a field"),
        ('"given.v1.OldAsk"', '"given.v1.Nothing"', "is not described"),
    ],
)
def test_a_view_that_cannot_read_its_message_is_left_out(before: str, after: str, said: str):
    peer = routes_of(SOURCE.replace(before, after))

    assert [each.template.text for each in peer.operations] == ["/new"]
    assert said in peer.problems[0]


@pytest.mark.parametrize("field", ["repeated Thing a = 1", "Key a = 1", "repeated Key a = 1"])
def test_a_key_must_be_a_string_of_repeated_messages(field: str):
    option = '[(letta.jsonmap.v1.field).keyed_by = "key"]'
    codecs: Codecs = codecs_of(f"message Key {{int32 key = 1;}} message Thing {{}} message A {{{field} {option};}}")

    with pytest.raises(MappingError, match="tells apart"):
        Schemas().message(codecs, "given.v1.A")
