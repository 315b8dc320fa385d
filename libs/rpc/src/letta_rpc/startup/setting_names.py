"""Names in the environment and in config.json that no service reads: most often one that was misspelt."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from letta_common.process.settings import SERVICES, Settings, configuration_file

LIST = Path(__file__).with_name("setting_names.txt")
"""Every setting, as `name` or `service.name`; made by `make docs`, since no service imports another's settings."""
# `LETTA_PG_URI` is the older name of the database's address; `LETTA_API_KEY` is read by clients, not by a service.
_OTHERS = frozenset({"LETTA_PG_URI", "LETTA_API_KEY"})
_log = structlog.get_logger("letta.settings")


def warn_of_unknown(settings: Settings) -> None:
    """Log each unknown name, and the known one that it resembles."""
    if settings.unknown_settings == "ignore":
        return
    own = frozenset(type(settings).model_fields)  # of a service that is not of this product too
    for name, resembles in unknown(os.environ, configuration_file(), {settings.service: own}):
        hint = f"; did you mean {resembles}?" if resembles else ""
        _log.warning(f"unknown setting {name} has no effect{hint}")


def unknown(
    environment: Mapping[str, str], configured: Mapping[str, Any], more: Mapping[str, frozenset[str]] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield the names that are no settings, each with the one that it resembles, or an empty text.

    `more` has settings of services that are not of this product.
    """
    shared, own = _known()
    own = {**own, **{name: own.get(name, frozenset()) | keys for name, keys in (more or {}).items()}}
    every = shared.union(*own.values())
    variables = {f"LETTA_{key.upper()}" for key in every} | _OTHERS
    variables |= {f"LETTA_{name.upper()}_{key.upper()}" for name in own for key in shared | own[name]}
    # pydantic-settings reads names without regard to case, so `letta_log_level` is a known name too.
    given = sorted(name for name in environment if name.upper().startswith("LETTA_"))
    yield from _missing({name: name.upper() for name in given}, variables, "")
    yield from _missing({key: key for key in configured}, every | set(own), "config.json: ")
    for name in own:
        if isinstance(below := configured.get(name), Mapping):
            yield from _missing({key: key for key in below}, shared | own[name], f"config.json: {name}.")


def _missing(given: Mapping[str, str], known: Iterable[str], place: str) -> Iterator[tuple[str, str]]:
    names = set(known)
    for written, name in given.items():
        if name not in names:
            found = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.8)
            yield f"{place}{written}", found[0] if found else ""


def _known() -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    lines = LIST.read_text().split()
    own = {
        name: frozenset(line.partition(".")[2] for line in lines if line.startswith(f"{name}.")) for name in SERVICES
    }
    return frozenset(line for line in lines if "." not in line), own
