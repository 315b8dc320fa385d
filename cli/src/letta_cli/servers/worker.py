"""One of several processes that serve everything on the same ports: what `letta server --workers` runs."""

from __future__ import annotations

import uvloop

from letta_cli.console import secret
from letta_cli.servers.stack import serve
from letta_common.process.settings import Settings
from letta_gateway.settings import GatewaySettings
from letta_rpc.startup.lifetime import begin, failures_told, leave


def main() -> None:
    """Serve until SIGTERM."""
    with failures_told():
        begin(Settings)
        uvloop.run(serve({}, GatewaySettings().bind, tell_key))
    leave()


async def tell_key(admin_key: str | None) -> None:
    """Show the administrator's key, when this start made the first one."""
    if admin_key:
        secret("The administrator's key, shown this once:", admin_key)
