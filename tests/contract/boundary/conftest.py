"""A deployment in processes of its own, with two organizations that own one of everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import grpc
import httpx
import pytest

from tests.callers import SCHEMAS
from tests.e2e import tenants as house
from tests.e2e.tenants import Tenant
from tests.servers import RunningServer, letta_server


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running server, a caller, and somebody of another organization."""

    server: RunningServer
    caller: Tenant
    other: Tenant
    admin: httpx.Client
    channel: grpc.Channel


@pytest.fixture(scope="module")  # each file changes what the tenants own
def deployment(databases, tmp_path_factory) -> Iterator[Deployment]:
    variables = {
        "LETTA_HOME": str(tmp_path_factory.mktemp("home")),
        "LETTA_DATABASE_URL": databases.clone(SCHEMAS),
        "LETTA_LLM_GATEWAY_PRIVATE_ADDRESSES": "true",
        "LETTA_TOOLS_EGRESS_ALLOWED_HOSTS": '["127.0.0.1"]',
    }
    secret = house.bootstrap(variables)
    with ExitStack() as stack:
        server = stack.enter_context(letta_server("", dev=False, environment=variables))
        url = stack.enter_context(house.mcp_server())
        admin = stack.enter_context(house.client(server, secret))
        caller, other = (house.make_tenant(server, admin, name, stack, "keys") for name in ("callers", "others"))
        for tenant in (caller, other):
            house.furnish(tenant, url)
        channel = stack.enter_context(grpc.insecure_channel(server.grpc_address))
        yield Deployment(server, caller, other, admin, channel)
