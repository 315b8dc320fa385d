"""What the gateway adds: request ids, credentials, CORS, health, documents."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.contract.http.conftest import Front, front, local_channel
from tests.unit.transcode.toy import Toy

USER = "user-00000000-0000-4000-8000-000000000001"
NEW = {"label": "x"}


@pytest.fixture
async def strict(toy: Toy) -> AsyncIterator[Front]:
    """A gateway that is not in development mode."""
    async with front({"toy": local_channel(toy)}, dev_mode=False) as found:
        await found.gateway.ready()
        yield found


async def test_a_request_id_is_made_passed_on_and_answered(client: httpx.AsyncClient, toy: Toy):
    made = await client.post("/v1/items/", json=NEW)
    assert toy.metadata["x-request-id"] == made.headers["x-request-id"]

    given = await client.post("/v1/items/", json=NEW, headers={"x-request-id": "mine.1"})
    assert toy.metadata["x-request-id"] == given.headers["x-request-id"] == "mine.1"

    forged = await client.post("/v1/items/", json=NEW, headers={"x-request-id": "a b"})
    assert forged.headers["x-request-id"] != "a b"


async def test_a_trace_is_passed_on(client: httpx.AsyncClient, toy: Toy):
    await client.post("/v1/items/", json=NEW, headers={"traceparent": "00-1-2-01"})

    assert toy.metadata["traceparent"] == "00-1-2-01"


async def test_other_headers_never_become_metadata(client: httpx.AsyncClient, toy: Toy):
    await client.post("/v1/items/", json=NEW, headers={"x-letta-actor-bin": "forged", "x-letta-service-bin": "forged"})

    assert not {"x-letta-actor-bin", "x-letta-service-bin"} & toy.metadata.keys()


async def test_a_credential_is_passed_on(strict: Front, toy: Toy):
    for headers in ({"authorization": "Bearer sk-1"}, {"x-bare-password": "password sk-1"}):
        await strict.client.post("/v1/items/", json=NEW, headers=headers)
        assert toy.metadata["authorization"] == "Bearer sk-1"


async def test_a_user_id_counts_in_development_only(client: httpx.AsyncClient, strict: Front, toy: Toy):
    await strict.client.post("/v1/items/", json=NEW, headers={"user_id": USER})
    assert "user_id" not in toy.metadata

    await client.post("/v1/items/", json=NEW, headers={"user_id": USER, "authorization": "Bearer sk-let-anything"})
    assert toy.metadata["user_id"] == USER
    assert "authorization" not in toy.metadata

    refused = await client.post("/v1/items/", json=NEW, headers={"user_id": "user-x"})
    assert refused.status_code == 400


async def test_a_key_of_this_deployment_counts_in_development(client: httpx.AsyncClient, toy: Toy):
    await client.post("/v1/items/", json=NEW, headers={"authorization": "Bearer lk_1_2", "user_id": USER})

    assert toy.metadata["authorization"] == "Bearer lk_1_2"
    assert "user_id" not in toy.metadata


@pytest.mark.parametrize("value", ["Basic abc", "Bearer \xff", "Bearer " + "x" * 5000])
async def test_a_malformed_credential_is_refused(strict: Front, value: str):
    answer = await strict.client.get("/v1/items/", headers={"authorization": value.encode("latin-1")})

    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})


@pytest.mark.parametrize("path", ["/v1/health/", "/v1/health", "/v1/ready/", "/v1/ready"])
async def test_health_needs_no_credential(strict: Front, path: str):
    answer = await strict.client.get(path)

    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json().keys() == {"version", "status"}


async def test_pages_are_read_only(client: httpx.AsyncClient):
    assert (await client.get("/")).json()["openapi"] == "/openapi.json"
    assert (await client.post("/")).status_code == 405
    assert (await client.head("/v1/health/")).content == b""


async def test_documents_can_be_switched_off(toy: Toy):
    async with front({"toy": local_channel(toy)}, docs=False) as found:
        await found.gateway.ready()
        assert (await found.client.get("/openapi.json")).status_code == 404


async def test_the_page_of_the_documents_loads_nothing_from_elsewhere(client: httpx.AsyncClient):
    page = (await client.get("/docs")).text

    assert "http://" not in page.replace("http-equiv", "")
    assert "https://" not in page


async def test_pages_of_allowed_origins_may_call(client: httpx.AsyncClient):
    origin = {"origin": "http://localhost:3000"}

    answer = await client.get("/v1/items/", headers=origin)
    asked = await client.options("/v1/items/", headers={**origin, "access-control-request-method": "POST"})

    assert answer.headers["access-control-allow-origin"] == origin["origin"]
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert asked.status_code == 200
    assert "PATCH" in asked.headers["access-control-allow-methods"]


async def test_pages_of_other_origins_may_not(client: httpx.AsyncClient):
    origin = {"origin": "http://evil.example"}

    answer = await client.get("/v1/items/", headers=origin)
    asked = await client.options("/v1/items/", headers={**origin, "access-control-request-method": "POST"})

    assert "access-control-allow-origin" not in answer.headers
    assert asked.status_code == 403


async def test_pages_of_other_origins_may_not_where_credentials_are_asked_for(strict: Front):
    origin = {"origin": "http://evil.example"}

    answer = await strict.client.get("/v1/items/", headers=origin)
    asked = await strict.client.options("/v1/items/", headers={**origin, "access-control-request-method": "POST"})

    assert "access-control-allow-origin" not in answer.headers
    assert asked.status_code == 400


async def test_a_star_allows_every_origin_without_credentials(toy: Toy):
    async with front({"toy": local_channel(toy)}, allowed_origins=("*",)) as found:
        answer = await found.client.get("/v1/health/", headers={"origin": "http://any.example"})

    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_taken_port_is_an_error(served: Front):
    with pytest.raises(OSError, match="cannot listen"):
        async with front({}, bind=f"127.0.0.1:{served.port}"):
            pass
