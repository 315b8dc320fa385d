"""Errors that come in groups, as task groups of `anyio` raise them."""

from __future__ import annotations

from letta_common.errors import AppError


def unwrapped(error: BaseException) -> BaseException:
    """Return the one error inside groups of errors that says most."""
    while isinstance(error, BaseExceptionGroup):
        error = next((each for each in error.exceptions if isinstance(each, AppError)), error.exceptions[0])
    return error
