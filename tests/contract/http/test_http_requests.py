"""Requests and responses through a real HTTP server."""

from __future__ import annotations

import ast
import json
from typing import Any

import httpx
import pytest

from tests.unit.transcode.toy import Toy


def problems(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the list that a 422 holds as text."""
    assert answer.status_code == 422
    assert answer.json()["trace_id"] == ""
    found: list[dict[str, Any]] = ast.literal_eval(answer.json()["detail"])
    return found


@pytest.mark.parametrize("path", ["/v1/items/item-9", "/v1/items/item-9/"])
async def test_a_bare_resource_is_answered(client: httpx.AsyncClient, path: str):
    answer = await client.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        **{"id": "item-9", "label": "a", "description": None, "limit": 1, "metadata": None, "tags": [], "said": None},
        **{"inner_text": "", "inner_number": None, "deep": False},
    }


async def test_an_additional_binding_is_served(client: httpx.AsyncClient):
    assert (await client.get("/v1/things/x")).json()["id"] == "things/x"


async def test_a_scalar_is_a_whole_body(client: httpx.AsyncClient):
    assert (await client.get("/v1/items/count")).text == "9007199254740993"


async def test_lists_page_by_the_last_id(client: httpx.AsyncClient):
    seen: list[str] = []
    after = ""
    while page := (await client.get("/v1/items/", params={"after": after} if after else {})).json():
        seen += [item["id"] for item in page]
        after = seen[-1]

    assert seen == [f"item-{number}" for number in range(1, 8)]
    assert len((await client.get("/v1/items?limit=2")).json()) == 2


async def test_query_parameters_repeat_nest_and_name_enums(client: httpx.AsyncClient):
    query = "tags=a&tags=b%20c&color=Blue!&filter.name=item-3&filter.since=2026-01-01T00:00:00Z&ascending=on&other=1"

    answer = await client.get(f"/v1/items/?{query}")

    assert [(item["id"], item["tags"]) for item in answer.json()] == [("item-3", ["a", "b c", "2"])]


@pytest.mark.parametrize(
    ("query", "kind", "loc"),
    [
        ("limit=x", "int_parsing", ("query", "limit")),
        ("limit=", "int_parsing", ("query", "limit")),
        ("limit=99999999999", "int_out_of_range", ("query", "limit")),
        ("color=pink", "enum", ("query", "color")),
        ("ascending=perhaps", "bool_type", ("query", "ascending")),
        ("filter.since=then", "datetime_parsing", ("query", "filter.since")),
        ("tags=%FF", "query", ("query",)),
        ("&".join(["tags=a"] * 3000), "query", ("query",)),
    ],
)
async def test_wrong_query_parameters_are_named(client: httpx.AsyncClient, query: str, kind: str, loc: Any):
    answer = await client.get(f"/v1/items/?{query}")

    assert [(each["type"], each["loc"]) for each in problems(answer)] == [(kind, loc)]


async def test_a_resource_is_created_from_body_header_and_query(client: httpx.AsyncClient, toy: Toy):
    body = {"label": "x", "metadata": {"n": 2**70, "f": 1.0}, "said": {"content": [{"text": "t"}]}, "deep": True}

    answer = await client.post("/v1/items/?dry_run=1", json=body, headers={"x-project-id": "p"})

    assert answer.status_code == 201
    assert answer.json()["metadata"] == {"n": 2**70, "f": 1.0}
    assert '"f":1.0' in answer.text
    assert (answer.json()["limit"], answer.json()["description"]) == (100, "p")
    assert answer.json()["said"] == {"content": [{"type": "text", "text": "t"}]}
    assert toy.created[-1].dry_run


async def test_all_wrong_values_of_a_body_are_listed(client: httpx.AsyncClient):
    answer = await client.post("/v1/items/", json={"limit": "x", "tags": 5})

    assert [(each["type"], each["loc"]) for each in problems(answer)] == [
        ("missing", ("body", "label")),
        ("int_parsing", ("body", "limit")),
        ("list_type", ("body", "tags")),
    ]


async def test_bad_json_is_answered_as_the_retired_server_did(client: httpx.AsyncClient):
    answer = await client.post("/v1/items/", content=b"{not json", headers={"content-type": "application/json"})

    assert answer.json() == {
        "trace_id": "",
        "detail": "[{'type': 'json_invalid', 'loc': ('body', 1), 'msg': 'JSON decode error', 'input': {}, "
        "'ctx': {'error': 'Expecting property name enclosed in double quotes'}}]",
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"NaN",
        b'{"limit": NaN}',
        b'{"limit": 1e999}',
        b'{"limit": ' + b"9" * 5000 + b"}",
        b'{"label": "\\ud800"}',
        b'{"label": "\\ud800", "limit": 11111111111111111111}',
        b'{"label": "\xff"}',
        b"\xff\xfe",
        b'{"label": "a", "metadata": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"label": "a", "extra": ' + b'{"child": ' * 300 + b"{}" + b"}" * 301,
        b'{"label": {"label": "a"}}',
        b'{"label": "a", "label": 1}',
    ],
)
async def test_hostile_bodies_are_refused_and_never_break_the_server(client: httpx.AsyncClient, body: bytes):
    answer = await client.post("/v1/items/", content=body)

    assert problems(answer)


async def test_the_last_of_equal_keys_counts(client: httpx.AsyncClient):
    answer = await client.post("/v1/items/", content=b'{"label": 1, "label": "last"}')

    assert answer.json()["label"] == "last"


async def test_a_large_body_is_refused_by_its_size(client: httpx.AsyncClient):
    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 2**20

    whole = await client.post("/v1/items/", content=b'{"label": "' + b"a" * 10_000_000 + b'"}')
    streamed = await client.post("/v1/items/", content=chunks())

    assert (whole.status_code, streamed.status_code) == (413, 413)
    assert "larger than" in whole.json()["detail"]


async def test_a_body_just_within_the_limit_is_taken(client: httpx.AsyncClient):
    answer = await client.post("/v1/items/", json={"label": "a" * (8 * 2**20 - 100)})

    assert answer.status_code == 201


async def test_a_masked_update_names_what_is_in_the_body(client: httpx.AsyncClient):
    body = {"description": None, "metadata": {}, "inner_text": "i", "said": {"content": "x"}}

    answer = await client.patch("/v1/items/item-1", json=body)

    assert answer.json()["mask"] == "description,metadata,inner.inner_text,said"
    assert answer.json()["item"]["limit"] == 0
    assert (await client.patch("/v1/items/item-1", json={})).json()["mask"] == ""
    assert (await client.patch("/v1/items/item-1")).json()["mask"] == ""


async def test_a_masked_update_with_the_whole_body(client: httpx.AsyncClient):
    answer = await client.put("/v1/items/item-1?force=true", json={"description": None, "item_id": "no", "force": 1})

    assert answer.json() == {"mask": "description", "force": True}


async def test_statuses_and_constant_bodies(client: httpx.AsyncClient):
    deleted = await client.delete("/v1/items/item-1")
    forgotten = await client.post("/v1/items/item-1:forget")

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (forgotten.status_code, forgotten.text) == (200, "null")


async def test_wrong_verbs_and_unknown_paths(client: httpx.AsyncClient):
    wrong = await client.put("/v1/items/")
    unknown = await client.get("/v1/nothing/here")

    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
    assert wrong.headers["allow"] == "GET, POST"
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (await client.get("/v1/items/%FF")).status_code == 404


@pytest.mark.parametrize(
    ("item", "status", "body"),
    [
        ("missing", 404, {"detail": "no such item"}),
        ("plain", 400, {"detail": "not now"}),
        ("busy", 409, {"detail": "a run is busy", "error_code": "CONVERSATION_BUSY", "run_id": "run-1"}),
        (
            "approval",
            409,
            {"detail": {"code": "PENDING_APPROVAL", "message": "answer first", "pending_request_id": "m-1"}},
        ),
        ("model", 402, {"error": {"type": "llm_insufficient_credits", "message": "no credit", "detail": "pay"}}),
        ("unknown-reason", 404, {"detail": "nothing"}),
        ("crash", 500, {"detail": "An unknown error occurred"}),
    ],
)
async def test_errors_have_their_status_and_body(client: httpx.AsyncClient, item: str, status: int, body: Any):
    answer = await client.get(f"/v1/items/{item}")

    assert (answer.status_code, answer.json()) == (status, body)
    assert answer.headers.get("retry-after") == ("2" if item == "busy" else None)


async def test_violations_are_located_in_the_request(client: httpx.AsyncClient):
    answer = await client.get("/v1/items/invalid")

    assert [(each["loc"], each["msg"]) for each in problems(answer)] == [(("path", "item_id"), "bad")]


async def test_a_form_fills_fields_and_files(client: httpx.AsyncClient):
    content = b"line\r\n--x--\x00" * 1000

    answer = await client.post(
        "/v1/folders/f-1/upload", files={"file": ("../a/b.txt", content, "text/plain")}, data={"name": "n", "copies": 3}
    )

    assert answer.json() == {
        **{"folder": "f-1", "file_name": "b.txt", "content_type": "text/plain", "size": len(content)},
        **{"name": "n", "copies": 3},
    }


@pytest.mark.parametrize("size", [0, 1, 2**18, 2**18 + 1, 3 * 2**18])
async def test_a_file_goes_in_pieces_to_who_takes_a_stream(client: httpx.AsyncClient, toy: Toy, size: int):
    content = bytes(number % 251 for number in range(size))

    answer = await client.post(
        "/v1/folders/f-1/pieces", files={"file": ("b.txt", content, "text/plain")}, data={"name": "n", "copies": 3}
    )

    assert answer.json() == {
        **{"folder": "f-1", "file_name": "b.txt", "content_type": "text/plain", "size": size},
        **{"name": "n", "copies": 3},
    }
    first, *rest = toy.created
    assert {(each.folder, each.name, each.copies) for each in toy.created} == {("f-1", "n", 3)}
    assert [each.file.HasField("size") for each in toy.created] == [False] * len(rest) + [True]
    assert (rest[-1].file.size, len(rest)) == (size, size // 2**18 + 1)
    assert first.file.content == content


async def test_a_malformed_form_is_refused(client: httpx.AsyncClient):
    kind = {"content-type": "multipart/form-data; boundary=x"}

    broken = await client.post("/v1/folders/f-1/upload", content=b"no form", headers=kind)
    wrong = await client.post("/v1/folders/f-1/upload", files={"file": ("a", b"")}, data={"copies": "many"})

    assert problems(broken)[0]["type"] == "form_invalid"
    assert problems(wrong)[0]["loc"] == ("body", "copies")


async def test_bytes_go_up_and_down(client: httpx.AsyncClient):
    up = await client.put("/v1/blobs/b", content=b"\x00\xff", headers={"content-type": "image/png"})
    down = await client.get("/v1/files/a/b%2Fc/d")

    assert up.json() == {"content_type": "image/png", "size": 2}
    assert (down.headers["content-type"], down.text) == ("text/plain", "a/b/c/d")


async def test_every_public_method_speaks_canonical_json(client: httpx.AsyncClient):
    sent = {"big": "9007199254740993", "color": "COLOR_BLUE", "maybeNumber": "0", "at": "2026-01-02T03:04:05Z"}

    answer = await client.post("/rpc/toy.v1.ItemService/Echo", json=sent)

    assert answer.json() == sent
    assert (await client.post("/rpc/toy.v1.ItemService/GetItem", json={"itemId": "x"})).json()["item"]["id"] == "x"


async def test_canonical_errors_are_statuses(client: httpx.AsyncClient):
    missing = await client.post("/rpc/toy.v1.ItemService/GetItem", json={"item_id": "missing"})
    crash = await client.post("/rpc/toy.v1.ItemService/GetItem", json={"item_id": "crash"})

    assert missing.status_code == 404
    assert missing.json()["details"][0]["reason"] == "AGENT_NOT_FOUND"
    assert (crash.status_code, crash.json()["message"]) == (500, "internal error")


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"big": true}', b'{"nope": 1}', b'{"text": "\\ud800"}', b'{"child":' * 200 + b"{}" + b"}" * 200],
)
async def test_bad_canonical_json_is_an_invalid_argument(client: httpx.AsyncClient, body: bytes):
    answer = await client.post("/rpc/toy.v1.ItemService/Echo", content=body)

    assert (answer.status_code, answer.json()["code"]) == (400, 3)


@pytest.mark.parametrize("method", ["Secret", "Nope"])
async def test_internal_methods_look_like_unknown_ones(client: httpx.AsyncClient, method: str):
    answer = await client.post(f"/rpc/toy.v1.ItemService/{method}", json={})

    assert (answer.status_code, answer.json()) == (
        501,
        {"code": 12, "message": "there is no such method", "details": []},
    )
    assert (await client.get("/v1/secret")).status_code == 404
    assert (await client.get("/rpc/toy.v1.ItemService/Echo")).status_code == 405


async def test_what_is_served_is_documented(client: httpx.AsyncClient):
    found = (await client.get("/openapi.json")).json()

    assert json.dumps(found).count("Secret") == 0
    assert set(found["paths"]["/v1/items/{item_id}"]) == {"get", "patch", "put", "delete"}
    assert (await client.get("/docs")).headers["content-type"].startswith("text/html")
