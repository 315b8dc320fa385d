"""Without a credential nothing is served, and no credential opens another organization."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import descriptor_pool, message_factory

from letta.agent.v1 import agent_service_pb2, agent_service_pb2_grpc
from letta.jsonmap.v1 import annotations_pb2
from letta_auth.domain.signers import Signer
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_rpc.service_identity import ServiceIdentity
from tests.callers import SCHEMAS
from tests.e2e import tenants as house
from tests.e2e.tenants import MARK, Tenant
from tests.servers import RunningServer, letta_server

PACKAGES = {
    "letta.agent.v1": ("agent", "conversation", "run", "step"),
    "letta.auth.v1": ("api_key", "credential", "organization", "user"),
    "letta.llm.v1": ("embedding", "generation", "model", "provider", "trace"),
    "letta.memory.v1": ("archive", "block", "context", "file", "folder", "message", "passage"),
    "letta.tools.v1": ("mcp_server", "sandbox_config", "tool_execution", "tool"),
}
REFUSED = {404, 400, 403, 405, 409, 422, 501}
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def variables(databases, tmp_path_factory) -> dict[str, str]:
    return {
        "LETTA_HOME": str(tmp_path_factory.mktemp("home")),
        "LETTA_DATABASE_URL": databases.clone(SCHEMAS),
        "LETTA_LLM_GATEWAY_PRIVATE_ADDRESSES": "true",
        "LETTA_TOOLS_EGRESS_ALLOWED_HOSTS": '["127.0.0.1"]',
    }


@pytest.fixture(scope="module")
def admin_secret(variables) -> str:
    return house.bootstrap(variables)


@pytest.fixture(scope="module")
def deployment(variables, admin_secret) -> Iterator[RunningServer]:
    with letta_server("", dev=False, environment=variables) as running:
        yield running


@pytest.fixture(scope="module")
def people(deployment, admin_secret) -> Iterator[tuple[Tenant, Tenant, httpx.Client]]:
    with house.mcp_server() as url:
        yield from house.tenants(deployment, admin_secret, url)


@pytest.fixture(scope="module", autouse=True)
def removed_key(deployment, people) -> str:
    """A key that worked and was removed before the first test."""
    victim, _, admin = people
    made = house.make_key(admin, victim.user_id, ["read"])
    with house.client(deployment, made["secret"]) as reader:
        assert reader.get("/v1/agents/").status_code == 200
    assert admin.delete(f"/v1/api-keys/{made['id']}").status_code in (200, 204)
    return str(made["secret"])


@pytest.fixture(scope="module")
def victim(people) -> Tenant:
    return people[0]


@pytest.fixture(scope="module")
def intruder(people) -> Tenant:
    return people[1]


@pytest.fixture(scope="module")
def admin(people) -> httpx.Client:
    return people[2]


@pytest.fixture(scope="module")
def channel(deployment) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(deployment.grpc_address) as made:
        yield made


@pytest.fixture(scope="module")
def operations(deployment) -> list[tuple[str, str]]:
    paths = httpx.get(f"{deployment.http_url}/openapi.json", timeout=60).json()["paths"]
    return [(method.upper(), path) for path, found in paths.items() for method in found]


def methods() -> list[Any]:
    """Return the descriptors of every method of every service."""
    pool = descriptor_pool.Default()
    found = []
    for package, nouns in PACKAGES.items():
        for noun in nouns:
            __import__(f"{package}.{noun}_service_pb2")
            file = pool.FindFileByName(f"{package.replace('.', '/')}/{noun}_service.proto")
            found += [m for service in file.services_by_name.values() for m in service.methods]
    return found


def is_internal(method: Any) -> bool:
    return bool(method.GetOptions().Extensions[annotations_pb2.method].internal)


def call(channel: grpc.Channel, method: Any, request: Any, **metadata: Any) -> tuple[Code, str]:
    """Call a method; return the code and what came back as text."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kinds = (channel.unary_unary, channel.unary_stream, channel.stream_unary)
    make = kinds[2 * method.client_streaming + method.server_streaming]
    answer = message_factory.GetMessageClass(method.output_type)
    stub = make(path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString)
    sent = tuple((name.replace("_", "-") if name != "user_id" else name, value) for name, value in metadata.items())
    try:
        got = stub(iter([request]) if method.client_streaming else request, timeout=30, metadata=sent)
        return Code.OK, str(list(got) if method.server_streaming else got)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""


def bearer(tenant: Tenant) -> dict[str, str]:
    return {"authorization": f"Bearer {tenant.secret}"}


def request_for(method: Any, owned: dict[str, str]) -> Any:
    """Fill a request with ids, wherever it has fields of their names."""
    request = message_factory.GetMessageClass(method.input_type)()
    for field in method.input_type.fields:
        if field.cpp_type != field.CPPTYPE_STRING:
            continue
        value = owned.get(field.name) or owned.get(field.name.removesuffix("s"))
        if value and field.is_repeated:
            getattr(request, field.name).append(value)
        elif value:
            setattr(request, field.name, value)
    return request


def test_the_first_key_is_made_once(variables, admin_secret):
    assert admin_secret.startswith("lk_")
    assert house.bootstrap(variables) == ""


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer lk_unknown_key"},
        {"authorization": "Bearer unused"},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"user_id": "user-00000000-0000-4000-8000-000000000000"},
        {"x-letta-actor-bin": "AAAA", "x-letta-service-bin": "AAAA"},
    ],
)
def test_no_http_operation_is_served_without_a_credential(deployment, operations, headers):
    served = []
    with httpx.Client(base_url=deployment.http_url, headers=headers, timeout=60) as http:
        for method, path in operations:
            answer = http.request(method, path, json={} if method != "GET" else None)
            if answer.status_code not in (401, 422):
                served.append((method, path, answer.status_code, answer.text[:80]))
    assert served == []


@pytest.mark.parametrize("metadata", [{}, {"authorization": "Bearer lk_no_no"}, {"user_id": "victim"}])
def test_no_rpc_is_served_without_a_credential(channel, victim, metadata):
    if "user_id" in metadata:
        metadata = {"user_id": victim.user_id}
    expected = {m.full_name: Code.UNIMPLEMENTED if is_internal(m) else Code.UNAUTHENTICATED for m in methods()}
    got = {m.full_name: call(channel, m, request_for(m, victim.owned), **metadata)[0] for m in methods()}
    assert got == expected


@pytest.mark.parametrize("secret", [b"", b"guess"])
def test_a_forged_service_identity_opens_no_internal_rpc(channel, victim, intruder, secret):
    forger = ServiceIdentity("agent", secret, SystemClock())
    for method in filter(is_internal, methods()):
        request = request_for(method, victim.owned)
        forged = forger.of(f"{method.containing_service.full_name}/{method.name}", b"")
        code, _ = call(channel, method, request, x_letta_service_bin=forged, **bearer(intruder))
        assert code in (Code.UNIMPLEMENTED, Code.UNAUTHENTICATED), method.full_name


@pytest.mark.parametrize("forger", ["garbage", "own key", "empty"])
def test_a_forged_actor_is_refused(channel, victim, forger):
    actor = Actor(victim.owned["org_id"], victim.user_id, frozenset({"read", "write", "admin"}))
    private = Ed25519PrivateKey.generate().private_bytes_raw()
    signed = Signer(private, "key-1", "letta", SystemClock()).sign(actor)
    given = {"garbage": b"\xff\x00 nonsense", "own key": signed, "empty": b""}[forger]
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.ListAgents(
            agent_service_pb2.ListAgentsRequest(), timeout=30, metadata=[("x-letta-actor-bin", given), ("user_id", "x")]
        )
    assert raised.value.code() is Code.UNAUTHENTICATED


def test_a_user_id_beside_a_key_changes_nothing(channel, deployment, victim, intruder):
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)
    metadata = [("authorization", f"Bearer {intruder.secret}"), ("user_id", victim.user_id)]
    listed = stub.ListAgents(agent_service_pb2.ListAgentsRequest(), timeout=30, metadata=metadata)
    assert MARK not in str(listed)
    assert MARK not in intruder.http.get("/v1/agents/", headers={"user_id": victim.user_id}).text


def test_no_http_operation_shows_or_changes_another_organizations_things(operations, victim, intruder):
    before = house.snapshot(victim)
    leaks = []
    for method, path in operations:
        url = path
        for name, value in victim.owned.items():
            url = url.replace("{" + name + "}", value)
        query = {name: victim.owned[name] for name in ("agent_id", "conversation_id", "org_id", "user_id")}
        answer = intruder.http.request(method, url, json=None if method == "GET" else {"input": "hi"}, params=query)
        if (
            MARK in answer.text
            or answer.status_code in (500, 502, 503)
            or (url != path and answer.status_code not in REFUSED)
        ):
            leaks.append((method, path, answer.status_code, answer.text[:120]))
    assert [leak for leak in leaks if not harmless(leak)] == []
    assert house.snapshot(victim) == before


def harmless(leak: tuple[str, str, int, str]) -> bool:
    """Let pass answers that are the same for an id that nobody has: an empty list."""
    return leak[2] == 200 and leak[3] in ("[]", "{}", "null", "0")


def test_no_rpc_shows_or_changes_another_organizations_things(channel, victim, intruder):
    before = house.snapshot(victim)
    for method in methods():
        if is_internal(method):
            continue
        request = request_for(method, victim.owned)
        code, text = call(channel, method, request, **bearer(intruder))
        assert MARK not in text, method.full_name
        assert code not in (Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE), f"{method.full_name}: {code} {text}"
    assert house.snapshot(victim) == before


@pytest.mark.parametrize("field", ["block_ids", "tool_ids", "tags"])
def test_another_organizations_things_cannot_be_built_into_an_agent(victim, intruder, field):
    given = victim.owned.get(field.removesuffix("s"), MARK)
    before = intruder.http.get("/v1/agents/").json()
    answer = intruder.http.post("/v1/agents/", json={"model": "builtin/rules", field: [given]})
    if field == "tags":
        assert answer.status_code == 200
        assert intruder.http.get("/v1/agents/", params={"tags": [MARK]}).json()[0]["id"] == answer.json()["id"]
        intruder.http.delete(f"/v1/agents/{answer.json()['id']}")
        return
    assert answer.status_code == 404, answer.text
    assert intruder.http.get("/v1/agents/").json() == before


@pytest.mark.parametrize(
    "path",
    [
        "core-memory/blocks/attach/{block_id}",
        "tools/attach/{tool_id}",
        "archives/attach/{archive_id}",
    ],
)
def test_another_organizations_things_cannot_be_attached(victim, intruder, path):
    agent = house.posted(intruder.http, "/v1/agents/", {"model": "builtin/rules"})
    answer = intruder.http.patch(f"/v1/agents/{agent['id']}/{path.format(**victim.owned)}")
    assert answer.status_code == 404, answer.text
    intruder.http.delete(f"/v1/agents/{agent['id']}")


@pytest.mark.parametrize("path", ["/v1/messages/search", "/v1/passages/search", "/v1/tools/search"])
def test_searches_find_nothing_of_others(intruder, path):
    answer = intruder.http.post(path, json={"query": MARK})
    assert answer.status_code < 500
    assert MARK not in answer.text


def test_the_model_of_another_organizations_provider_cannot_be_used(victim, intruder):
    answer = intruder.http.post("/v1/agents/", json={"model": f"{MARK.lower()}/gpt"})
    assert answer.status_code == 404
    assert MARK.lower() not in intruder.http.get("/v1/models/").text


def test_a_provider_key_is_never_shown(victim):
    assert f"sk-{MARK}" not in victim.http.get("/v1/providers/").text
    assert f"sk-{MARK}" not in victim.http.get(f"/v1/providers/{victim.owned['provider_id']}").text


def test_a_key_that_reads_cannot_write(deployment, admin, victim):
    secret = house.make_key(admin, victim.user_id, ["read"])["secret"]
    agent_id = victim.owned["agent_id"]
    with house.client(deployment, secret) as reader:
        assert reader.get(f"/v1/agents/{agent_id}").status_code == 200
        assert reader.post(f"/v1/agents/{agent_id}/messages", json={"input": "hi"}).status_code == 403
        assert reader.post(f"/v1/agents/{agent_id}/messages/stream", json={"input": "hi"}).status_code == 403
        assert reader.post("/v1/blocks/", json={"label": "x", "value": "y"}).status_code == 403
        assert reader.patch(f"/v1/agents/{agent_id}", json={"name": "mine"}).status_code == 403
        assert reader.delete(f"/v1/agents/{agent_id}").status_code == 403


def test_a_key_without_the_right_makes_no_keys_and_no_organizations(intruder, victim):
    own = {"name": "more", "user_id": intruder.user_id, "scopes": ["admin"]}
    assert intruder.http.post("/v1/api-keys/", json=own).status_code == 403
    assert intruder.http.post("/v1/api-keys/", json=own | {"user_id": victim.user_id}).status_code in (403, 404)
    assert intruder.http.post("/v1/admin/orgs/", json={"name": "mine"}).status_code == 403
    assert intruder.http.get("/v1/admin/users/").status_code in (200, 403)
    assert victim.user_id not in intruder.http.get("/v1/admin/users/").text
    assert victim.owned["org_id"] not in intruder.http.get("/v1/admin/orgs/").text


def test_a_key_that_may_make_keys_makes_none_that_may_more(deployment, admin, intruder):
    secret = house.make_key(admin, intruder.user_id, ["read", "write", "keys"])["secret"]
    with house.client(deployment, secret) as manager:
        assert house.make_key(manager, intruder.user_id, ["read"])["secret"].startswith("lk_")
        body = {"name": "more", "user_id": intruder.user_id, "scopes": ["admin"]}
        assert manager.post("/v1/api-keys/", json=body).status_code == 403


def test_a_removed_key_stops_working(deployment, removed_key):
    with house.client(deployment, removed_key) as reader:
        end = time.monotonic() + 60  # a verdict is believed for half a minute
        while reader.get("/v1/agents/").status_code != 401:
            assert time.monotonic() < end
            time.sleep(0.5)


def test_health_and_reflection_need_no_credential(deployment):
    assert httpx.get(f"{deployment.http_url}/v1/health/", timeout=30).status_code == 200
    assert httpx.get(f"{deployment.http_url}/openapi.json", timeout=30).status_code == 200
