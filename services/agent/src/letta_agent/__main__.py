"""Runs the agent service: `python -m letta_agent`."""

from __future__ import annotations

from letta_agent.settings import AgentSettings
from letta_agent.wiring import build
from letta_rpc.process import run


def main() -> None:
    """Serve until SIGTERM."""
    run(AgentSettings, build, peers=("memory", "tools", "llm_gateway", "auth"))


if __name__ == "__main__":
    main()
