"""The schemas of all services, brought to the newest revision."""

from __future__ import annotations

import asyncio

from letta_postgres.migrations import upgrade

PACKAGES = {
    "auth": "letta_auth",
    "memory": "letta_memory",
    "tools": "letta_tools",
    "llm": "letta_llm_gateway",
    "agent": "letta_agent",
}
"""Schema of each service that has one, and the package with its migrations."""


async def upgrade_all(url: str) -> None:
    """Bring every schema to the newest revision."""
    # One alone, since it makes the extensions that all need; the others would wait for its lock.
    first, *others = PACKAGES.items()
    await upgrade(url, schema=first[0], package=first[1])
    await asyncio.gather(*(upgrade(url, schema=schema, package=package) for schema, package in others))
