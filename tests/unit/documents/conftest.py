"""Extractors, one for each tier."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from letta_documents.documents import Document
from letta_documents.extractor import Extractor, ExtractorOptions
from letta_sandbox.calls import Isolation
from tests.unit.sandbox.conftest import readable_interpreter

TIERS = {"namespace": Isolation.NAMESPACE, "landlock": Isolation.LANDLOCK}
Extract = Callable[..., Awaitable[Document]]


def options(*tiers: Isolation, **more: object) -> ExtractorOptions:
    return ExtractorOptions(tiers=tiers, interpreter=readable_interpreter(), **more)


async def made(tier: str, **more: object) -> Extractor:
    """Return an extractor of a tier; skip with the reason where this kernel lacks it."""
    extractor = Extractor(options(TIERS[tier], most_bytes=64 << 20, **more))
    report = await extractor.isolation()
    if report.isolation is None:
        pytest.skip("; ".join(report.missing))
    return extractor


@pytest.fixture(scope="session")
async def extractor() -> AsyncIterator[Extractor]:
    """An extractor of the strongest tier here, which takes all the time that a busy machine may need."""
    extractor = Extractor(options(*TIERS.values(), most_bytes=64 << 20, timeout_seconds=300.0))
    yield extractor
    await extractor.close()


@pytest.fixture(scope="session", params=list(TIERS))
async def of_each_tier(request) -> AsyncIterator[Extractor]:
    """An extractor of each tier."""
    extractor = await made(request.param, timeout_seconds=300.0)
    yield extractor
    await extractor.close()


@pytest.fixture(scope="session", params=list(TIERS))
async def impatient(request) -> AsyncIterator[Extractor]:
    """An extractor of each tier that soon gives up."""
    extractor = await made(request.param, timeout_seconds=1.0)
    yield extractor
    await extractor.close()


@pytest.fixture
def extract(extractor) -> Extract:
    """Extract a file of which only its name is said."""

    async def extract(data: bytes, name: str = "", media_type: str = "") -> Document:
        return await extractor.extract(data, media_type=media_type, name=name)

    return extract
