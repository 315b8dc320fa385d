"""Runs the auth service: `python -m letta_auth`; with `bootstrap` it prints the first administrator's key instead."""

from __future__ import annotations

import asyncio
import sys

from letta_auth.settings import AuthSettings
from letta_auth.wiring import bootstrap_admin_key, build
from letta_rpc.process import run
from letta_rpc.startup.lifetime import begin, failures_told


def main() -> None:
    """Serve until SIGTERM, or make the first key."""
    if sys.argv[1:] != ["bootstrap"]:
        run(AuthSettings, build)
        return
    with failures_told():
        secret = asyncio.run(bootstrap_admin_key(begin(AuthSettings)))
    if secret is None:
        sys.exit("there is an administrator's key already; make further keys with APIKeyService.CreateAPIKey")
    sys.stdout.write(f"{secret}\n")


if __name__ == "__main__":
    main()
