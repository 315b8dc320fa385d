"""Runs the memory service: `python -m letta_memory`."""

from __future__ import annotations

from letta_memory.settings import MemorySettings
from letta_memory.wiring import build
from letta_rpc.process import run


def main() -> None:
    """Serve until SIGTERM."""
    run(MemorySettings, build, peers=("llm_gateway",))


if __name__ == "__main__":
    main()
