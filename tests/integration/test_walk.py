"""The walk of a message in the docs is the one that is measured."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "architecture.md"


def told(text: str) -> tuple[str, dict[str, set[str]]]:
    """Return the figures of a walk, and the names of each package's row; their order depends on who comes first."""
    lines = text.splitlines()
    (figures,) = [line for line in lines if line.endswith(" shapes.")]
    rows = lines[lines.index("| package | files | shapes |") + 2 :]
    cells = [line.split("`")[1::2] for line in rows if line.startswith("| `")]
    return figures, {package: set(names) for package, *names in cells}


async def test_the_walk_in_the_docs_is_the_measured_one():
    command = [sys.executable, "-m", "benchmarks.walk"]
    made = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, text=True, timeout=240)
    assert made.returncode == 0, made.stderr[-2000:]

    page = PAGE.read_text().partition("### The walk, counted")[2].partition("<!-- End of what is made. -->")[0]
    assert told(page) == told(made.stdout), "renew the walk with `python -m benchmarks.walk --write`"
