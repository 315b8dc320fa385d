"""Structured logs: one line an event, with the request id, and never the variables of a traceback.

What libraries write through `logging` (uvicorn, gRPC, drivers) takes the same form as what the services write.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from letta_common.actor import current_request_id
from letta_common.process.settings import Settings

_OWN = "letta"


class _Lines(structlog.PrintLogger):
    """Writes lines to stderr, and knows whose they are."""

    def __init__(self, name: str = _OWN) -> None:
        super().__init__(sys.stderr)
        self.name = name


def configure(settings: Settings) -> None:
    """Write log lines to stderr as the settings say; called once, by `__main__`."""
    level = getattr(logging, settings.log_level.upper())
    terminal = sys.stderr.isatty()
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not terminal)
    begin: list[Processor] = [
        _add_request_id,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
    ]
    end = _json() if as_json else _console(colors=terminal and not os.environ.get("NO_COLOR"))
    structlog.configure(
        processors=[*begin, *end],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    _take_in_libraries(level, begin, end)


def _take_in_libraries(level: int, begin: list[Processor], end: list[Processor]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*begin, structlog.stdlib.ExtraAdder()], processors=[strip, *end]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Below WARNING, HTTP clients and vendors' SDKs write addresses and bodies, which may hold secrets.
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger(_OWN).setLevel(level)
    logging.captureWarnings(True)


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _console(*, colors: bool) -> list[Processor]:
    # structlog's default is rich's traceback where rich is installed, and that prints the variables.
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _add_request_id(_: Any, __: str, event: EventDict) -> EventDict:
    request_id = current_request_id()
    if request_id:
        event["request_id"] = request_id
    return event
