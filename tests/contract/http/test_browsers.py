"""What a page in a browser can make of a development server: nothing, unless it is of this server or allowed."""

from __future__ import annotations

import httpx
import pytest

from tests.contract.http.conftest import Front, front, local_channel
from tests.unit.transcode.toy import Toy

NEW = {"label": "x"}
PAGE = {"origin": "http://localhost:3000"}
ROUTES = ["/v1/items/", "/rpc/toy.v1.ItemService/Echo"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8283", "LocalHost:1", "127.0.0.1:8283", "127.8.8.8", "[::1]:8283", "letta.localhost"],
)
async def test_names_of_this_machine_are_served(client: httpx.AsyncClient, host: str):
    assert (await client.post("/v1/items/", json=NEW, headers={"host": host})).status_code == 201
    assert (await client.get("/v1/health/", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8283", "localhost.evil.example", "evil-localhost", "0.0.0.0:8283", "10.0.0.1"),
        *("127.0.0.1.evil.example", "a@localhost", "localhost/x", "", "[::", "localhost:x@evil.example", "[::2]"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/items/", "/v1/health/", "/openapi.json", "/nothing"])
async def test_other_names_are_refused_before_all_else(client: httpx.AsyncClient, toy: Toy, host: str, path: str):
    answers = [await client.request(method, path, headers={"host": host}) for method in ("GET", "POST", "OPTIONS")]

    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert toy.metadata == {}


async def test_configured_names_are_served(toy: Toy):
    async with front({"toy": local_channel(toy)}, allowed_hosts=("Letta.Lan",)) as found:
        await found.gateway.ready()

        served = await found.client.post("/v1/items/", json=NEW, headers={"host": "letta.lan:8283"})
        refused = await found.client.post("/v1/items/", json=NEW, headers={"host": "other.lan"})

    assert (served.status_code, refused.status_code) == (201, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:3000.evil.example"},
        {"origin": "http://localhost:9999", "sec-fetch-site": "same-site"},
        {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    ],
)
@pytest.mark.parametrize("path", ROUTES)
async def test_pages_of_other_sites_make_nothing(
    client: httpx.AsyncClient, toy: Toy, headers: dict[str, str], path: str
):
    for kind in ("text/plain", "application/json", ""):
        answer = await client.post(path, content=b'{"label": "x"}', headers={**headers, "content-type": kind})
        assert answer.status_code == 403
    assert (await client.delete("/v1/items/i-1", headers=headers)).status_code == 403
    assert toy.metadata == {}


async def test_pages_of_other_sites_load_nothing(client: httpx.AsyncClient):
    image = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    frame = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}

    answers = [await client.get("/docs", headers=headers) for headers in (image, frame, link)]

    assert [answer.status_code for answer in answers] == [403, 403, 200]


@pytest.mark.parametrize("site", ["same-site", "cross-site", None])
async def test_allowed_pages_call_and_are_asked_before(client: httpx.AsyncClient, site: str | None):
    headers = PAGE | ({"sec-fetch-site": site} if site else {})
    asked = {**headers, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}

    assert (await client.options("/v1/items/", headers=asked)).status_code == 200
    made = await client.post("/v1/items/", json=NEW, headers=headers)
    assert made.status_code == 201
    assert made.headers["access-control-allow-origin"] == PAGE["origin"]


async def test_a_page_of_this_server_calls_it(served: Front):
    for site in ("same-origin", "none"):
        origin = {"origin": f"http://127.0.0.1:{served.port}", "sec-fetch-site": site}
        assert (await served.client.post("/v1/items/", json=NEW, headers=origin)).status_code == 201
    assert (await served.client.get("/docs", headers={"sec-fetch-site": "none"})).status_code == 200


async def test_every_page_may_call_where_a_star_allows_it(toy: Toy):
    async with front({"toy": local_channel(toy)}, allowed_origins=("*",)) as found:
        await found.gateway.ready()
        answer = await found.client.post("/v1/items/", json=NEW, headers={"origin": "http://any.example"})

    assert answer.status_code == 201


async def test_with_credentials_any_name_and_page_is_served(toy: Toy):
    async with front({"toy": local_channel(toy)}, dev_mode=False) as found:
        await found.gateway.ready()
        headers = {"host": "letta.example", "origin": "http://evil.example", "authorization": "Bearer lk_1_2"}
        answer = await found.client.post("/v1/items/", json=NEW, headers=headers)

    assert answer.status_code == 201
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "kind",
    [
        *("text/plain", "text/plain; charset=application/json", "application/x-www-form-urlencoded"),
        *("multipart/form-data; boundary=x", "application/json-seq", "text/json", "application/octet-stream", "x"),
    ],
)
@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_of_another_type_than_json_is_refused(client: httpx.AsyncClient, toy: Toy, kind: str, path: str):
    answer = await client.post(path, content=b'{"label": "x"}', headers={"content-type": kind})

    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]
    assert toy.metadata == {}


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
)
async def test_json_is_taken_under_each_of_its_names(client: httpx.AsyncClient, kind: str):
    assert (await client.post("/v1/items/", content=b'{"label": "x"}', headers={"content-type": kind})).is_success


async def test_a_body_without_a_type_is_read_as_json(client: httpx.AsyncClient):
    assert (await client.post("/v1/items/", content=b'{"label": "x"}')).is_success
