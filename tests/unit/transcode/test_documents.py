"""The OpenAPI document."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from letta_transcode.routing.openapi import Info, document
from letta_transcode.routing.routes import compile_peer, merge
from tests.unit.transcode.toy import toy_catalog


@cache
def found() -> dict[str, Any]:
    return json.loads(json.dumps(document(merge([compile_peer("toy", toy_catalog())]), Info("Toy", "1"))))


def operation(path: str, verb: str) -> dict[str, Any]:
    made: dict[str, Any] = found()["paths"][path][verb]
    return made


def schema(name: str) -> dict[str, Any]:
    made: dict[str, Any] = found()["components"]["schemas"][name]
    return made


def test_every_reference_leads_somewhere():
    def references(value: Any) -> set[str]:
        if isinstance(value, list):
            return {each for item in value for each in references(item)}
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own | {each for item in value.values() for each in references(item)}
        return set()

    for reference in references(found()):
        assert schema(reference.removeprefix("#/components/schemas/"))


def test_operation_ids_are_unique():
    names = [each["operationId"] for item in found()["paths"].values() for each in item.values()]

    assert len(names) == len(set(names)) == 17
    assert "ItemService_GetItem_2" in names


def test_parameters_stand_where_they_belong():
    made = {(each["name"], each["in"]): each for each in operation("/v1/items/", "get")["parameters"]}

    assert made["limit", "query"]["schema"] == {"type": "integer", "format": "int32", "default": 3}
    assert made["tags", "query"]["schema"] == {"type": "array", "items": {"type": "string"}}
    assert made["filter.since", "query"]["schema"]["type"] == ["string", "null"]
    assert operation("/v1/items/{item_id}", "get")["parameters"] == [
        {"name": "item_id", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    assert {each["in"] for each in operation("/v1/items/", "post")["parameters"]} == {"query", "header"}


def test_responses_are_bare_where_the_contract_says_so():
    created = operation("/v1/items/", "post")["responses"]
    listed = operation("/v1/items/", "get")["responses"]["200"]["content"]["application/json"]["schema"]

    assert created["201"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Item"}
    assert listed == {"type": "array", "items": {"$ref": "#/components/schemas/Item"}}
    assert "content" not in operation("/v1/items/{item_id}", "delete")["responses"]["204"]
    assert {"422", "default"} < created.keys()


def test_a_path_that_may_stream_names_both_answers():
    content = operation("/v1/items/{item_id}/messages", "post")["responses"]["200"]["content"]

    assert content.keys() == {"application/json", "text/event-stream"}


def test_forms_and_files():
    assert "multipart/form-data" in operation("/v1/folders/{folder}/upload", "post")["requestBody"]["content"]
    assert "*/*" in operation("/v1/blobs/{name}", "put")["requestBody"]["content"]
    assert "*/*" in operation("/v1/files/{name}", "get")["responses"]["200"]["content"]


def test_unions_enums_and_options_of_fields():
    assert schema("Part")["discriminator"]["propertyName"] == "type"
    assert schema("Color") == {"type": "string", "enum": ["dark_red", "Blue!"]}
    assert schema("Item")["required"] == ["label"]
    assert "inner_text" in schema("Item")["properties"]
    assert schema("Item")["properties"]["metadata"] == {}
    assert schema("Plain")["properties"]["maybe"] == {"type": ["string", "null"]}
    assert schema("Part.image")["allOf"] if "Part.image" in found()["components"]["schemas"] else True


def test_a_masked_body_requires_nothing():
    body = operation("/v1/items/{item_id}", "patch")["requestBody"]

    assert not body["required"]
    assert "required" not in body["content"]["application/json"]["schema"]


def test_deprecated_operations_are_marked():
    assert operation("/v1/items/{item_id}:forget", "post")["deprecated"]
