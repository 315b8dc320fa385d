"""Serves the tools service over the network."""

from __future__ import annotations

from letta_rpc.process import run
from letta_tools.settings import ToolsSettings
from letta_tools.wiring import build


def main() -> None:
    """Serve until SIGTERM."""
    run(ToolsSettings, build)


if __name__ == "__main__":
    main()
