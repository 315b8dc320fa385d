"""What the retired V1 server served is served, or answers 501 with the reason; nothing of it is unknown."""

from __future__ import annotations

import re

import httpx
import pytest

from letta_gateway.v1.operations import ABSENT, V1Operation, read_operations
from letta_transcode.routing.routes import Absence, merge
from letta_transcode.routing.templates import PathMatch, Refused

OPERATIONS = read_operations()
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("each", OPERATIONS, ids=lambda each: f"{each.method} {each.path}")
def test_no_operation_is_unknown(http: httpx.Client, each: V1Operation) -> None:
    path = re.sub(r"\{(\w+?)(?:_id)?(?:=\*\*)?\}", rf"\1-{UNKNOWN}", each.path)
    body = None if each.method in {"GET", "HEAD"} else {}
    answer = http.request(each.method, path, json=body)

    if each.answer in ABSENT:
        assert answer.status_code == 501
        assert each.method == "HEAD" or answer.json() == {"detail": each.why}
    else:
        assert answer.status_code not in {405, 501}
        assert answer.text != '{"detail":"Not Found"}'


@pytest.mark.parametrize("path", ["/v1/git/a/b/c", "/v1/zai/v1/x/y", "/v1/anthropic/v1/models"])
def test_whatever_is_below_is_absent_too(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 501


def test_an_operation_of_nobody_is_unknown(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").status_code == 404
    assert http.put("/v1/templates").status_code == 405


def test_a_service_wins_over_what_is_said_to_be_absent() -> None:
    routes = merge([], {("GET", "/v1/items/{id}"): "Why."})
    found = routes.router.find("GET", "/v1/items/x")

    assert isinstance(found, PathMatch)
    assert found.target == Absence("Why.")
    assert routes.operations == []
    assert isinstance(routes.router.find("POST", "/v1/items/x"), Refused)
