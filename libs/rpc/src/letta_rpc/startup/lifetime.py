"""How a process begins and ends: settings, logs, failures as one sentence, signals. It loads no gRPC."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError

from letta_common.app_error import AppError
from letta_common.process.faults import MigrationFailed
from letta_common.process.settings import Settings, explained
from letta_rpc.startup import logs
from letta_rpc.startup.setting_names import warn_of_unknown

S = TypeVar("S", bound=Settings)


def begin(settings: type[S], **arguments: Any) -> S:
    """Read the settings of a process, begin its log and say there which names are no settings."""
    chosen = settings(**arguments)
    logs.configure(chosen)
    warn_of_unknown(chosen)
    return chosen


@contextmanager
def failures_told(other: type[Exception] = OSError) -> Iterator[None]:
    """End the process with one sentence for what an operator can mend: settings, files, addresses, the database."""
    try:
        yield
    except (ValidationError, SettingsError) as error:
        sys.exit(f"error: {explained(error)}")
    except (AppError, MigrationFailed, OSError, other) as error:
        sys.exit(f"error: {error}")


@contextmanager
def starting() -> Iterator[None]:
    """Collect no garbage while a process starts, nor ever among what it loaded: a sixth of a start."""
    gc.disable()
    try:
        yield
    finally:
        # What is loaded by now lives as long as the process; frozen, later collections do not walk it.
        gc.freeze()
        gc.enable()


def leave() -> NoReturn:
    """End the process. Everything is closed by now; taking the interpreter apart would take another half second."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # It runs no exit handlers and flushes nothing, hence the three flushes above.
    os._exit(0)


def termination() -> asyncio.Event:
    """Return the event that SIGTERM or SIGINT sets. Ask for it before starting, so that no signal is too early."""
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    return end
