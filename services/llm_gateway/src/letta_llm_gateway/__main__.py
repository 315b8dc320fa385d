"""Runs the llm_gateway service: `python -m letta_llm_gateway`."""

from __future__ import annotations

from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.wiring import build
from letta_rpc.process import run


def main() -> None:
    """Serve until SIGTERM."""
    run(LLMGatewaySettings, build)


if __name__ == "__main__":
    main()
