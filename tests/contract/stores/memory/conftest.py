"""The stores that search needs, with an agent, and what reads files."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from letta_documents.extractor import Extractor, ExtractorOptions
from letta_postgres.db import Database, DatabaseOptions
from tests.support.searches import SearchStore


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SearchStore]:
    db = await Database.open(database_url, schema="memory", options=DatabaseOptions(pool_size=6))
    made = SearchStore(db)
    await made.begin()
    yield made
    await db.close()


@pytest.fixture(scope="module")
async def extractor() -> AsyncIterator[Extractor]:
    made = Extractor(ExtractorOptions())
    yield made
    await made.close()
