"""Bounds of what tests wait for."""

import asyncio
from contextlib import asynccontextmanager


@asynccontextmanager
async def within(seconds, what):
    """Fail, and name what was waited for, when what is inside takes longer."""
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield
    except TimeoutError as error:
        if scope.expired():
            raise AssertionError(f"{what} did not come within {seconds} s") from error
        raise
