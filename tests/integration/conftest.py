"""A server of its own process whose models are fake vendors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.callers import IMPATIENT, SCHEMAS, Api, calling, environment, serving
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.openai_server import OpenAIServer
from tests.servers import RunningServer
from tests.support.databases import Databases


@pytest.fixture(scope="module")
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as vendor:
        yield vendor


@pytest.fixture(scope="module")
async def anthropic() -> AsyncIterator[AnthropicServer]:
    async with AnthropicServer() as vendor:
        yield vendor


@pytest.fixture(scope="module")
async def server(
    databases: Databases, openai: OpenAIServer, anthropic: AnthropicServer
) -> AsyncIterator[RunningServer]:
    async with serving(
        databases.clone(SCHEMAS), environment={**IMPATIENT, **environment(openai, anthropic)}
    ) as running:
        yield running


@pytest.fixture(scope="module")
async def api(server: RunningServer) -> AsyncIterator[Api]:
    async with calling(server) as caller:
        yield caller


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> None:
    """Forget what earlier tests told the vendors."""
    for name in ("openai", "anthropic"):
        if name in request.fixturenames:
            vendor = request.getfixturevalue(name)
            vendor.script.clear()
            vendor.requests.clear()
            vendor.respond = vendor.default
            vendor.gone.clear()
            vendor.asked.clear()
