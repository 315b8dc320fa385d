"""Providers of each tier, started once."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from letta_sandbox.calls import Env, Isolation, Result, SandboxCall
from letta_sandbox.local import hosts
from letta_sandbox.local.provider import LocalOptions, LocalProvider

TIERS = {"namespace": Isolation.NAMESPACE, "landlock": Isolation.LANDLOCK}


def readable_interpreter() -> str:
    """Return an interpreter that other users can read too: its own, or the system's."""
    for parent in Path(hosts.find_interpreter().library).parents:
        if not parent.stat().st_mode & 0o001:
            return "/usr/bin/python3"
    return ""


def options(tier: Isolation, **more: str) -> LocalOptions:
    return LocalOptions(tiers=(tier,), interpreter=readable_interpreter() if os.getuid() == 0 else "", **more)


@pytest.fixture(scope="session", params=list(TIERS))
async def provider(request) -> AsyncIterator[LocalProvider]:
    """A provider of each tier; a tier that this kernel lacks is skipped with the reason."""
    provider = LocalProvider(options(TIERS[request.param]))
    report = await provider.probe()
    if report.isolation is None:
        pytest.skip("; ".join(report.missing))
    yield provider
    await provider.close()


@pytest.fixture
def run(provider):
    """Run source; further words are fields of Call."""

    async def run(source: str, arguments: str = "{}", function: str = "f", **fields) -> Result:
        return await provider.run(SandboxCall(source, function, arguments, **fields), Env())

    return run
