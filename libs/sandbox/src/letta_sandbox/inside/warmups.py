"""Imported by the fork server before it forks: what tools use most, loaded once for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import typing

import pydantic


class _Sample(pydantic.BaseModel):
    """Makes pydantic load what it loads late."""

    number: int
    names: list[str] = []


def _warm() -> None:
    """Go once through what a call goes through."""
    json.dumps(pydantic.TypeAdapter(list[_Sample]).validate_python([{"number": 1}])[0].model_dump(mode="json"))
    typing.get_type_hints(_Sample)
    # An event loop needs a pair of sockets, which not every place allows.
    with contextlib.suppress(OSError):
        asyncio.run(asyncio.sleep(0))


_warm()
