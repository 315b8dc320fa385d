"""A server of its own process, and callers of two organizations."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.servers import RunningServer


@pytest.fixture(scope="module")
def stranger(server: RunningServer, http: httpx.Client) -> Iterator[httpx.Client]:
    """A caller of another organization."""
    organization = http.post("/v1/admin/orgs/", json={"name": "strangers"}).json()
    user = http.post("/v1/admin/users/", json={"name": "eve", "organization_id": organization["id"]}).json()
    with httpx.Client(base_url=server.http_url, timeout=20, headers={"user_id": user["id"]}) as client:
        yield client


@pytest.fixture(scope="module")
def agent_id(http: httpx.Client) -> str:
    body = {"model": "builtin/rules", "memory_blocks": [{"label": "human", "value": "Name: Sam."}]}
    return str(http.post("/v1/agents/", json=body).json()["id"])
