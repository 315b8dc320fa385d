"""Vendors' SDKs: brought in when they are needed, and their failures turned into ours."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from letta_sandbox.remote.machines import MachineFailed, MachineLost, MachinesBusy, TooMuchOutput


def load(module: str, extra: str) -> Any:
    """Return a module of an SDK. Raises RuntimeError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(f"the provider {extra} needs the extra `services/tools[{extra}]`") from error


@contextlib.contextmanager
def failing(busy: type[Exception]) -> Iterator[None]:
    """Turn what an SDK and its connection raise, where that has no common class, into MachineFailed or MachinesBusy."""
    try:
        yield
    except (MachineFailed, MachineLost, TooMuchOutput):
        raise
    except TimeoutError as error:
        raise MachineFailed("no answer in time") from error
    except busy as error:
        raise MachinesBusy(str(error)[:500]) from error
    except Exception as error:
        raise MachineFailed(f"{type(error).__name__}: {error}"[:500]) from error


@contextlib.contextmanager
def handed_over() -> Iterator[None]:
    """Call it a loss when something fails from here on: the job may have begun."""
    try:
        yield
    except MachineFailed as error:
        raise MachineLost(str(error)) from error
