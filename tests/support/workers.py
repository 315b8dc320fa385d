"""How many workers run the tests, and which tests begin: those that wait and those that take long come first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

WORKERS_A_CORE = 2
"""A test waits for processes a third of its time, and its worker's core with it."""
MOST_WORKERS = 16
"""Each has a database server of its own; with more of them the longest file takes as long as all others."""
FIRST = ("e2e", "integration", "hostile", "unit/sandbox", "unit/tools_mcp", "unit/tools_sandbox", "compat", "contract")
"""Where the files are that take minutes. What is left at the end takes seconds, so all workers end together."""
_TESTS = Path(__file__).parents[1]


def pytest_xdist_auto_num_workers() -> int | None:
    """Say what `-n auto` means, unless the environment does."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(WORKERS_A_CORE * cores, MOST_WORKERS)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders of `FIRST` before all others; within them nothing changes its place."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    path = item.path.relative_to(_TESTS).as_posix()
    return next((rank for rank, folder in enumerate(FIRST) if path.startswith(f"{folder}/")), len(FIRST))
