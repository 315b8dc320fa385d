"""Every RPC of auth over the network and in process: success, each reason, another tenant, paging."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr

from letta.auth.v1 import (
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    organization_service_pb2,
    organization_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from letta.common.v1 import actor_pb2
from letta.common.v1.actor_pb2 import Scope
from letta_auth.settings import AuthSettings
from letta_auth.wiring import bootstrap_admin_key, build
from letta_common.actor import Actor, acting_as
from letta_common.clock import SystemClock
from letta_common.errors import (
    APIKeyNotFound,
    CursorNotFound,
    InvalidArgument,
    OperationUnimplemented,
    OrganizationNotFound,
    PermissionDenied,
    Unauthenticated,
    UserNotFound,
    ValidationFailed,
)
from letta_local_channel import LocalChannel, LocalServer
from letta_rpc.auth_client import AuthClient
from letta_rpc.client import PeerChannel
from letta_rpc.process import boundary_for
from letta_rpc.server import Server
from letta_rpc.service import Deps
from letta_rpc.verdicts import SignatureVerifier, scopes_of
from tests.support.rpc import (
    DEFAULT_ORGANIZATION,
    DEFAULT_USER,
    SECRET,
    Identities,
    running,
)

IDENTITIES = Identities()


def settings_for(database_url, **more):
    return AuthSettings(
        database_url=SecretStr(database_url),
        cluster_secret=SecretStr(SECRET),
        bind="127.0.0.1:0",
        drain_seconds=0,
        **more,
    )


@pytest.fixture(params=["network", "local"])
async def channel(request, database_url):
    """Run auth in dev mode; calls come from the default user, who may do everything."""
    service = await build(settings_for(database_url, dev_mode=True), Deps())
    async with running(service, request.param, identities=IDENTITIES) as channel:
        yield channel


@pytest.fixture
def organizations(channel):
    return Calls(organization_service_pb2_grpc.OrganizationServiceStub(channel), organization_service_pb2)


@pytest.fixture
def users(channel):
    return Calls(user_service_pb2_grpc.UserServiceStub(channel), user_service_pb2)


@pytest.fixture
def api_keys(channel):
    return Calls(api_key_service_pb2_grpc.APIKeyServiceStub(channel), api_key_service_pb2)


@pytest.fixture
def credentials(channel):
    return Calls(credential_service_pb2_grpc.CredentialServiceStub(channel), credential_service_pb2)


class Calls:
    """Calls a service's methods by name with the fields of the request."""

    def __init__(self, stub, messages):
        self._stub = stub
        self._messages = messages

    def __getattr__(self, method):
        def call(metadata=None, **fields):
            request = getattr(self._messages, f"{method}Request")(**fields)
            return getattr(self._stub, method)(request, timeout=10, metadata=metadata)

        return call


@asynccontextmanager
async def acting(organization_id, user_id, *scopes):
    with acting_as(IDENTITIES.sign(Actor(organization_id, user_id, frozenset(scopes)))):
        yield


async def tenant(organizations, users):
    organization = (await organizations.CreateOrganization(name="acme")).organization
    user = (await users.CreateUser(name="ann", organization_id=organization.id)).user
    return organization, user


async def test_the_life_of_an_organization(organizations):
    made = (await organizations.CreateOrganization(name="acme", privileged_tools=True)).organization
    assert made.id.startswith("org-")
    assert made.privileged_tools
    assert abs(made.created_at.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=5)
    assert (await organizations.GetOrganization(org_id=made.id)).organization == made
    changed = (await organizations.UpdateOrganization(org_id=made.id, organization={"name": "new"})).organization
    assert (changed.name, changed.privileged_tools) == ("new", True)
    gone = (await organizations.DeleteOrganization(org_id=made.id)).organization
    assert gone.id == made.id
    for call in (organizations.GetOrganization, organizations.UpdateOrganization, organizations.DeleteOrganization):
        with pytest.raises(OrganizationNotFound):
            await call(org_id=made.id)


async def test_an_organization_may_be_made_without_a_name(organizations):
    assert (await organizations.CreateOrganization()).organization.name.startswith("organization ")


async def test_organizations_are_listed_in_pages(organizations):
    made = [(await organizations.CreateOrganization(name=f"o{n}")).organization for n in range(3)]
    found = (await organizations.ListOrganizations(after=made[0].id, limit=2)).organizations
    assert [each.name for each in found] == ["o1", "o2"]
    first = (await organizations.ListOrganizations(limit=1)).organizations
    assert [each.id for each in first] == [DEFAULT_ORGANIZATION]
    with pytest.raises(CursorNotFound):
        await organizations.ListOrganizations(after="org-none")
    with pytest.raises(ValidationFailed):
        await organizations.ListOrganizations(limit=-1)


async def test_the_life_of_a_user(organizations, users):
    organization, made = await tenant(organizations, users)
    assert (made.organization_id, made.is_deleted) == (organization.id, False)
    assert (await users.GetUser(user_id=made.id)).user == made
    changed = (await users.UpdateUser(user_id=made.id, user={"name": "anna"})).user
    assert changed.name == "anna"
    assert changed.updated_at.ToDatetime() >= made.updated_at.ToDatetime()
    with pytest.raises(InvalidArgument):
        await users.UpdateUser(user_id=made.id, user={"organization_id": DEFAULT_ORGANIZATION})
    assert (await users.DeleteUser(user_id=made.id)).user.is_deleted
    for call in (users.GetUser(user_id=made.id), users.UpdateUser(user_id=made.id), users.DeleteUser(user_id=made.id)):
        with pytest.raises(UserNotFound):
            await call


async def test_a_user_needs_an_organization(users):
    with pytest.raises(OrganizationNotFound):
        await users.CreateUser(name="bob", organization_id="org-none")
    with pytest.raises(ValidationFailed):
        await users.CreateUser(name="", organization_id="org-none")
    with pytest.raises(ValidationFailed):
        await users.CreateUser(name="bob", organization_id="none")


async def test_users_are_listed_in_pages(organizations, users):
    organization, ann = await tenant(organizations, users)
    bob = (await users.CreateUser(name="bob", organization_id=organization.id)).user
    found = (await users.ListUsers(organization_id=organization.id)).users
    assert list(found) == [ann, bob]
    assert list((await users.ListUsers(organization_id=organization.id, after=ann.id)).users) == [bob]
    assert [each.id for each in (await users.ListUsers(limit=1)).users] == [DEFAULT_USER]
    with pytest.raises(CursorNotFound):
        await users.ListUsers(after="user-none")


async def test_the_directory_is_for_administrators(organizations, users):
    organization, ann = await tenant(organizations, users)
    async with acting(organization.id, ann.id, "read", "write", "keys"):
        for call in (
            organizations.CreateOrganization(),
            organizations.GetOrganization(org_id=organization.id),
            organizations.ListOrganizations(),
            organizations.UpdateOrganization(org_id=organization.id),
            organizations.DeleteOrganization(org_id=organization.id),
            users.CreateUser(name="bob", organization_id=organization.id),
            users.GetUser(user_id=ann.id),
            users.ListUsers(),
            users.UpdateUser(user_id=ann.id),
            users.DeleteUser(user_id=ann.id),
        ):
            with pytest.raises(PermissionDenied):
                await call


async def test_the_life_of_an_api_key(organizations, users, api_keys, credentials):
    organization, ann = await tenant(organizations, users)
    async with acting(organization.id, ann.id, "read", "write", "keys"):
        expires_at = Timestamp()
        expires_at.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
        made = await api_keys.CreateAPIKey(name="ci", scopes=[Scope.SCOPE_READ], expires_at=expires_at)
        assert (made.api_key.user_id, list(made.api_key.scopes)) == (ann.id, [Scope.SCOPE_READ])
        assert made.api_key.expires_at == expires_at
        assert (await api_keys.GetAPIKey(api_key_id=made.api_key.id)).api_key == made.api_key
        assert list((await api_keys.ListAPIKeys()).api_keys) == [made.api_key]

        context = (await credentials.ExchangeCredential(credential=made.secret)).context
        payload = actor_pb2.ActorContext.FromString(context.payload)
        assert (payload.organization_id, payload.user_id, list(payload.scopes)) == (
            organization.id,
            ann.id,
            [Scope.SCOPE_READ],
        )
        assert (await api_keys.GetAPIKey(api_key_id=made.api_key.id)).api_key.HasField("last_used_at")

        await api_keys.DeleteAPIKey(api_key_id=made.api_key.id)
        assert list((await api_keys.ListAPIKeys()).api_keys) == []
        for call in (api_keys.GetAPIKey, api_keys.DeleteAPIKey):
            with pytest.raises(APIKeyNotFound):
                await call(api_key_id=made.api_key.id)
        with pytest.raises(Unauthenticated):
            await credentials.ExchangeCredential(credential=made.secret)


async def test_api_keys_of_another_tenant_do_not_exist(organizations, users, api_keys):
    organization, ann = await tenant(organizations, users)
    other, bob = await tenant(organizations, users)
    made = await api_keys.CreateAPIKey(name="ci", user_id=ann.id)
    async with acting(other.id, bob.id, "read", "write", "keys"):
        with pytest.raises(APIKeyNotFound):
            await api_keys.GetAPIKey(api_key_id=made.api_key.id)
        with pytest.raises(APIKeyNotFound):
            await api_keys.DeleteAPIKey(api_key_id=made.api_key.id)
        with pytest.raises(UserNotFound):
            await api_keys.CreateAPIKey(name="as ann", user_id=ann.id)
        assert list((await api_keys.ListAPIKeys(user_id=ann.id)).api_keys) == []
    async with acting(organization.id, ann.id, "read", "write"):
        with pytest.raises(PermissionDenied):
            await api_keys.CreateAPIKey(name="more")
    async with acting(organization.id, ann.id, "write", "keys"):
        with pytest.raises(PermissionDenied, match="grants"):
            await api_keys.CreateAPIKey(name="more", scopes=[Scope.SCOPE_ADMIN])


async def test_the_scope_keys_alone_manages_keys_that_may_do_no_more(organizations, users, api_keys):
    organization, user = await tenant(organizations, users)
    async with acting(organization.id, user.id, "read", "write", "keys"):
        strong = (await api_keys.CreateAPIKey(name="strong", scopes=[Scope.SCOPE_READ])).api_key
    async with acting(organization.id, user.id, "keys"):
        made = (await api_keys.CreateAPIKey(name="mine", scopes=[Scope.SCOPE_KEYS])).api_key
        listed = (await api_keys.ListAPIKeys()).api_keys
        assert [key.id for key in listed] == [made.id, strong.id]
        assert (await api_keys.GetAPIKey(api_key_id=strong.id)).api_key == strong
        for words in (["read"], ["write", "keys"], ["admin"], []):
            with pytest.raises(PermissionDenied):
                await api_keys.CreateAPIKey(name="more", scopes=scopes_of(words))
        with pytest.raises(PermissionDenied):
            await api_keys.DeleteAPIKey(api_key_id=strong.id)
        await api_keys.DeleteAPIKey(api_key_id=made.id)
        with pytest.raises(PermissionDenied):
            await users.ListUsers()
    async with acting(organization.id, user.id, "read", "write"):
        with pytest.raises(PermissionDenied):
            await api_keys.ListAPIKeys()


async def test_api_keys_are_listed_newest_first_in_pages(organizations, users, api_keys):
    organization, ann = await tenant(organizations, users)
    async with acting(organization.id, ann.id, "read", "write", "keys"):
        made = [(await api_keys.CreateAPIKey(name=f"k{n}")).api_key for n in range(3)]
        assert [each.name for each in (await api_keys.ListAPIKeys(limit=2)).api_keys] == ["k2", "k1"]
        assert [each.name for each in (await api_keys.ListAPIKeys(after=made[1].id)).api_keys] == ["k0"]
        with pytest.raises(CursorNotFound):
            await api_keys.ListAPIKeys(after="api_key-none")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "x", "scopes": [99]},
        {"name": "x", "scopes": [Scope.SCOPE_READ, Scope.SCOPE_READ]},
        {"name": "x", "expires_at": Timestamp(seconds=1)},
    ],
)
async def test_a_malformed_api_key_is_refused(api_keys, fields):
    with pytest.raises(ValidationFailed):
        await api_keys.CreateAPIKey(**fields)


async def test_contexts_verify_with_the_listed_keys(channel, credentials, organizations, users):
    client = AuthClient(channel, SystemClock())
    verifier = SignatureVerifier(client, "letta", SystemClock())
    verdict = await verifier.verify(await client.exchange("", ""))
    assert (verdict.actor.organization_id, verdict.actor.user_id) == (DEFAULT_ORGANIZATION, DEFAULT_USER)
    assert verdict.actor.scopes == {"read", "write", "keys", "admin"}

    organization, ann = await tenant(organizations, users)
    answer = await credentials.IssueRunContext(organization_id=organization.id, user_id=ann.id, run_id="run-7")
    verdict = await verifier.verify(answer.context.SerializeToString())
    assert (verdict.actor.user_id, verdict.run_id) == (ann.id, "run-7")
    [key] = (await credentials.ListSigningKeys()).signing_keys
    assert key.id == answer.context.key_id
    assert len(key.public_key) == 32
    with pytest.raises(Unauthenticated):
        await credentials.IssueRunContext(organization_id=DEFAULT_ORGANIZATION, user_id=ann.id, run_id="run-7")
    with pytest.raises(ValidationFailed):
        await credentials.IssueRunContext(organization_id=organization.id, user_id=ann.id, run_id="")


@pytest.mark.parametrize("method", ["ExchangeCredential", "ListSigningKeys", "IssueRunContext"])
async def test_credentials_are_for_services_alone(channel, method):
    stub = credential_service_pb2_grpc.CredentialServiceStub(channel._inner)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(getattr(credential_service_pb2, f"{method}Request")(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@asynccontextmanager
async def edge(database_url, **more):
    """Serve auth as its own process does, asking itself, and yield a channel from outside."""
    settings = settings_for(database_url, **more)
    own = LocalServer()
    boundary = boundary_for(settings, PeerChannel(LocalChannel(own), "auth", settings.secret()))
    service = await build(settings, Deps())
    own.intercept(boundary)
    service.register(own)
    server = Server([service], settings, boundary)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as outside:
        yield outside
    await server.stop(notice=0)
    await own.stop()


async def test_a_caller_from_outside_needs_a_key(databases):
    dsn = databases.clone(["auth"])
    secret = await bootstrap_admin_key(settings_for(dsn))
    assert await bootstrap_admin_key(settings_for(dsn)) is None
    async with edge(dsn) as outside:
        stub = Calls(user_service_pb2_grpc.UserServiceStub(outside), user_service_pb2)
        found = await stub.ListUsers(metadata=(("authorization", f"Bearer {secret}"),))
        assert [user.id for user in found.users] == [DEFAULT_USER]
        for metadata, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            ((("user_id", DEFAULT_USER),), grpc.StatusCode.UNAUTHENTICATED),
            ((("authorization", f"Bearer {secret[:-1]}x"),), grpc.StatusCode.UNAUTHENTICATED),
            ((("authorization", "Bearer aaaa.bbbb.cccc"),), grpc.StatusCode.UNIMPLEMENTED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListUsers(metadata=metadata)
            assert caught.value.code() is code
    databases.drop(dsn)


async def test_in_dev_mode_a_caller_from_outside_needs_nothing(databases):
    dsn = databases.clone(["auth"])
    async with edge(dsn, dev_mode=True) as outside:
        stub = Calls(user_service_pb2_grpc.UserServiceStub(outside), user_service_pb2)
        for metadata in ((), (("authorization", "Bearer whatever"),), (("user_id", DEFAULT_USER),)):
            assert [user.id for user in (await stub.ListUsers(metadata=metadata)).users] == [DEFAULT_USER]
    databases.drop(dsn)


async def test_web_tokens_are_announced_as_missing(database_url):
    service = await build(settings_for(database_url), Deps())
    async with running(service, identities=IDENTITIES) as channel:
        stub = Calls(credential_service_pb2_grpc.CredentialServiceStub(channel), credential_service_pb2)
        with pytest.raises(OperationUnimplemented):
            await stub.ExchangeCredential(credential="aaaa.bbbb.cccc")
