"""Addresses that organizations name: attacks on the inner network, each with a control that shows the way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from letta_common.egress import AddressGuard, ForbiddenAddress
from letta_common.errors import AppError
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.catalogue.providers import Account, Provider
from letta_llm_gateway.providers.http import Clients
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from tests.contract.providers.llm_gateway.conftest import SERVERS, WIRES
from tests.contract.providers.llm_gateway.llm_prompts import prompt, user
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Fault, Vendor

HI = prompt(user("hi"))
OUTSIDE = ["8.8.8.8"]


@pytest.fixture(params=WIRES)
async def vendor(request) -> AsyncIterator[tuple[str, Vendor]]:
    async with SERVERS.get(request.param, OpenAIServer)() as server:
        yield request.param, server


@pytest.fixture
async def names(monkeypatch):
    """Answer names from a table; a name may answer otherwise each time."""
    table: dict[str, list[list[str]]] = {}
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host, port, **options):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in table:
            return await real(host, port, **options)
        answers = table[name]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return table


def account(kind: str, server: Vendor, host: str = "", *, owner: str = "org-a") -> Account:
    address = server.url if kind == "azure" else server.base_url
    return Account(kind, kind, "sk-test", address.replace("127.0.0.1", host or "127.0.0.1"), organization_id=owner)


@asynccontextmanager
async def made(of: Account, *allowed: str) -> AsyncIterator[Provider]:
    factory = ProviderFactory(BuiltinProvider(), Clients(AddressGuard(allowed)))
    try:
        yield await factory.provider(of)
    finally:
        await factory.close()


async def generated(provider: Provider) -> None:
    await provider.generate(Call("m", HI))


async def streamed(provider: Provider) -> None:
    async with aclosing(provider.stream(Call("m", HI))) as events:
        async for _ in events:
            pass


async def listed(provider: Provider) -> None:
    await provider.models()


WAYS: list[Callable[[Provider], Awaitable[None]]] = [generated, streamed, listed]


@pytest.mark.parametrize("way", WAYS)
async def test_a_name_that_turns_inside_after_the_check_is_refused(vendor, names, way):
    kind, server = vendor
    names["rebind.example"] = [OUTSIDE, ["127.0.0.1"]]
    asked = account(kind, server, "rebind.example")
    guard = AddressGuard()
    await guard.check_url(asked.base_url)  # when the provider was created, the name led outside

    async with made(asked) as provider:
        with pytest.raises(ForbiddenAddress, match=r"rebind\.example is not on the public internet"):
            await way(provider)
    assert server.requests == []


@pytest.mark.parametrize("way", WAYS)
async def test_control_the_same_name_reaches_the_vendor_for_the_deployment_itself(vendor, names, way):
    kind, server = vendor
    names["rebind.example"] = [["127.0.0.1"]]

    async with made(account(kind, server, "rebind.example", owner="")) as provider:
        await way(provider)
    assert server.requests


async def test_an_allowed_address_is_pinned_for_the_connection(vendor, names):
    kind, server = vendor
    names["site.example"] = [["127.0.0.1"], ["127.0.0.9"]]

    async with made(account(kind, server, "site.example"), "127.0.0.1") as provider:
        await generated(provider)
        await generated(provider)
    assert len(server.requests) == 2
    assert {request.headers["host"].partition(":")[0] for request in server.requests} == {"site.example"}
    assert names["site.example"] == [["127.0.0.9"]], "the name was asked once"


@pytest.mark.parametrize("owner", ["org-a", ""])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [302, 307])
async def test_a_redirect_takes_no_key_elsewhere(vendor, way, status, owner):
    kind, server = vendor
    async with OpenAIServer() as inner:
        inner_url = f"{inner.base_url}/models"

        async def redirect(request, out):
            await out.json({}, status, {"location": inner_url})

        server.handle = redirect
        async with made(account(kind, server, owner=owner), "127.0.0.1") as provider:
            with pytest.raises(AppError, match="redirects elsewhere"):
                await way(provider)
        assert inner.requests == []


@pytest.mark.parametrize("owner", ["org-a", ""])
async def test_headers_of_the_environment_are_for_the_deployment_alone(vendor, monkeypatch, owner):
    kind, server = vendor
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-operator")
    for name in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "x-corp: hush\nauthorization: Bearer hush\napi-key: hush")

    async with made(account(kind, server, owner=owner), "127.0.0.1") as provider:
        await generated(provider)
    sent = dict(server.requests[0].headers)
    told = "hush" in str(sent) or "org-of-the-operator" in str(sent)
    assert told == (not owner and kind not in {"google_ai", "google_vertex", "bedrock"})
    if owner:
        assert "sk-test" in str(sent)


FORMS = [
    "127.1",
    "2130706433",
    "0x7f000001",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "169.254.169.254",
    "10.0.0.1",
    "metadata.google.internal",
]


@pytest.mark.parametrize("host", FORMS)
async def test_inner_addresses_are_refused_however_they_are_written(names, host):
    names["metadata.google.internal"] = [["169.254.169.254"]]
    async with OpenAIServer() as server:
        async with made(account("openai", server, host)) as provider:
            with pytest.raises(ForbiddenAddress):
                await generated(provider)
        assert server.requests == []


@pytest.mark.parametrize("host", ["127.1", "2130706433", "localhost", "[::ffff:127.0.0.1]"])
async def test_control_these_forms_lead_to_the_server_where_all_is_allowed(host):
    async with OpenAIServer() as server:
        async with made(account("openai", server, host), "*") as provider:
            await generated(provider)
        assert len(server.requests) == 1


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:a9fe:a9fe]", "[fe80::1]"])
async def test_metadata_services_stay_out_of_reach_where_all_is_allowed(host):
    async with OpenAIServer() as server, made(account("openai", server, host), "*") as provider:
        with pytest.raises(ForbiddenAddress):
            await generated(provider)


@pytest.mark.parametrize("kind", ["ollama", "vllm", "llamacpp"])
async def test_the_usual_address_of_a_local_server_is_the_deployments_and_not_the_organizations(kind):
    async with made(Account("mine", kind, organization_id="org-a")) as provider:
        with pytest.raises(ForbiddenAddress):
            await listed(provider)


async def test_an_account_that_is_only_tried_leaves_nothing_behind(vendor):
    kind, server = vendor
    factory = ProviderFactory(BuiltinProvider(), Clients(AddressGuard(["127.0.0.1"])))
    asked = account(kind, server)

    async with factory.trial(asked) as tried:
        await listed(tried)
    kept = await factory.provider(asked)
    assert kept is not tried
    assert await factory.provider(asked) is kept
    await factory.close()


async def test_only_so_many_providers_are_kept():
    async with OpenAIServer() as server:
        factory = ProviderFactory(BuiltinProvider(), Clients(AddressGuard(["*"])), kept=2)
        one = account("openai", server)
        two, three = replace(one, name="two"), replace(one, name="three")
        first = await factory.provider(one)
        second = await factory.provider(two)
        assert await factory.provider(one) is first
        await factory.provider(three)

        assert await factory.provider(one) is first, "what was wanted last is kept"
        assert await factory.provider(two) is not second
        await second.generate(Call("m", HI))  # one that is no longer kept finishes what it does
        await factory.close()


async def test_a_vendor_that_is_away_is_not_called_forbidden():
    async with OpenAIServer() as server:
        away = account("openai", server)
    async with made(away, "127.0.0.1") as provider:
        with pytest.raises(AppError) as caught:
            await generated(provider)
    assert caught.value.reason == "LLM_UNAVAILABLE"


async def test_faults_pass_unchanged_through_the_guard(vendor):
    kind, server = vendor
    server.say(Fault(status=429, headers={"retry-after": "3"}))
    async with made(account(kind, server), "127.0.0.1") as provider:
        with pytest.raises(AppError) as caught:
            await generated(provider)
    assert (caught.value.reason, caught.value.metadata["retry_after"]) == ("LLM_RATE_LIMIT", "3")
