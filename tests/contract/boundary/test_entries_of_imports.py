"""Passages that come in from outside are named when they cannot be kept, and a key that reads takes none in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from letta.memory.v1 import archive_service_pb2 as pb
from letta.memory.v1.archive_service_pb2_grpc import ArchiveServiceStub
from letta.memory.v1.passage_pb2 import PassageRecord
from tests.contract.boundary.conftest import Deployment
from tests.e2e.tenants import make_key

LONG = "x" * 1_000_001
BAD: dict[str, dict[str, Any]] = {
    "text": {"text": LONG},
    "text ": {"text": "a\0b"},
    "metadata": {"text": "x", "metadata": '{"a": "\\u0000"}'},
    "metadata ": {"text": "x", "metadata": "{nothing"},
    "embedding[1]": {"text": "x", "embedding": [1.0, float("inf")]},
    "tags[0]": {"text": "x", "tags": ["a\0"]},
    "origin.run_id": {"text": "x", "origin": {"run_id": "a\0"}},
}


@pytest.fixture
def archive_id(deployment: Deployment) -> str:
    return str(deployment.caller.http.post("/v1/archives/", json={"name": "notes"}).json()["id"])


def kept(deployment: Deployment, archive_id: str, http: httpx.Client | None = None) -> list[str]:
    answer = (http or deployment.caller.http).get(f"/v1/archives/{archive_id}/passages/export")
    assert answer.status_code == 200, answer.text
    return [json.loads(line)["text"] for line in answer.text.splitlines()]


@pytest.mark.parametrize("field", BAD)
def test_an_entry_is_named(deployment: Deployment, archive_id: str, field: str) -> None:
    def messages() -> Iterator[pb.ImportPassagesRequest]:
        yield pb.ImportPassagesRequest(
            archive_id=archive_id, passages=[PassageRecord(text="a"), PassageRecord(text="b")]
        )
        yield pb.ImportPassagesRequest(
            archive_id=archive_id, passages=[PassageRecord(text="c"), PassageRecord(**BAD[field])]
        )

    with pytest.raises(grpc.RpcError) as caught:
        ArchiveServiceStub(deployment.channel).ImportPassages(messages(), timeout=60, metadata=(bearer(deployment),))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(f"passages[3].{field.strip()}: ")
    assert kept(deployment, archive_id) == ["a", "b"]


def test_a_line_is_named(deployment: Deployment, archive_id: str) -> None:
    lines = [*({"text": str(number)} for number in range(250)), {"text": LONG}]
    path = f"/v1/archives/{archive_id}/passages/import"

    answer = deployment.caller.http.post(path, content="\n".join(map(json.dumps, lines)))

    assert answer.status_code == 422
    assert re.search(r"'loc': \('body', 250, 'text'\)", answer.json()["detail"])
    assert kept(deployment, archive_id) == [str(number) for number in range(200)]


def test_a_key_that_reads_takes_out_and_not_in(deployment: Deployment, archive_id: str) -> None:
    path = f"/v1/archives/{archive_id}/passages"
    secret = make_key(deployment.admin, deployment.caller.user_id, ["read"])["secret"]
    lines = [json.dumps({"text": "a", "key": "k"}), json.dumps({"text": "b"})]
    own = deployment.caller.http.post(f"{path}/import", params={"import_id": "i"}, content="\n".join(lines))
    with httpx.Client(base_url=deployment.server.http_url, headers={"authorization": f"Bearer {secret}"}) as reader:
        refused = reader.post(f"{path}/import", content=lines[0])
        progress = reader.get(f"{path}/import", params={"import_id": "i"})
        read = kept(deployment, archive_id, reader)
    foreign = (
        deployment.other.http.get(f"{path}/export"),
        deployment.other.http.post(f"{path}/import", content=lines[0]),
    )

    assert (own.json(), refused.status_code) == ({"received_count": 2, "written_count": 2}, 403)
    assert (progress.json(), read) == (own.json(), ["a", "b"])
    assert [answer.status_code for answer in foreign] == [404, 404]


def bearer(deployment: Deployment) -> tuple[str, str]:
    return "authorization", f"Bearer {deployment.caller.secret}"
