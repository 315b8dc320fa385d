"""What the library that reads source refuses, told as an error of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from letta_common.errors import ToolSourceInvalid
from letta_tool_schemas.errors import SourceInvalid


@contextmanager
def source_errors() -> Iterator[None]:
    """Raise ToolSourceInvalid for SourceInvalid."""
    try:
        yield
    except SourceInvalid as error:
        raise ToolSourceInvalid(error.message, **error.details) from error
