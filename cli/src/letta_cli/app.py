"""The `letta` command: servers, a chat, agents, databases."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
import uvloop
from pydantic import ValidationError
from pydantic_settings import SettingsError

from letta_cli import agents, chat, demo, keys
from letta_cli.console import err, fail, panel
from letta_common import logs
from letta_common.errors import AppError
from letta_common.faults import MigrationFailed
from letta_common.settings import PEERS, Settings
from letta_embedded_postgres import EmbeddedPostgresError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Stateful agents over gRPC.")
app.add_typer(agents.app, name="agents")
app.add_typer(keys.app, name="keys")
app.command("chat")(chat.chat)
db = typer.Typer(no_args_is_help=True, help="The database.")
app.add_typer(db, name="db")

DevOption = Annotated[bool, typer.Option("--dev", help="Serve callers without a credential as the default user.")]
HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(help="Port of HTTP.")]
GrpcPortOption = Annotated[int, typer.Option("--grpc-port", help="Port of gRPC.")]


@app.command()
def server(
    service: Annotated[str, typer.Argument(help="One service, or all of them in one process.")] = "all",
    dev: DevOption = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8283,
    grpc_port: GrpcPortOption = 50051,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no banner.")] = False,
) -> None:
    """Run all services in one process, or one service."""
    if service != "all":
        names = [*PEERS, "gateway"]
        if service not in names:
            fail(f"there is no service `{service}`; there are {', '.join(names)}")
        os.execv(sys.executable, [sys.executable, "-m", f"letta_{service}"])
    arguments: dict[str, Any] = {"bind": f"{host}:{grpc_port}"} | ({"dev_mode": True} if dev else {})
    settings = Settings(**arguments)
    logs.configure(settings)
    process: Any = importlib.import_module("letta_common.process")
    start = ExitStack()
    start.enter_context(process.starting())
    # The services are imported here alone, so that every other command starts quickly.
    stack: Any = importlib.import_module("letta_cli.stack")

    async def started(admin_key: str | None) -> None:
        start.close()
        lines = [f"Administrator's key, shown this once: {admin_key}"] if admin_key else []
        if not quiet:
            banner = await asyncio.to_thread(demo.engine_banner, f"{host}:{grpc_port}", settings)
            lines += [f"gRPC  {host}:{grpc_port}", f"HTTP  http://{host}:{port}/docs", banner, demo.HINT]
        if lines:
            panel("Letta on gRPC", lines)

    uvloop.run(stack.serve_all(arguments, f"{host}:{port}", started))
    process.leave()


@app.command()
def up(
    dev: DevOption = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8283,
    grpc_port: GrpcPortOption = 50051,
) -> None:
    """Run every service in a process of its own."""
    settings = Settings()
    logs.configure(settings)
    processes: Any = importlib.import_module("letta_cli.processes")
    ports = {name: grpc_port + offset for offset, name in enumerate(PEERS)}
    variables = {f"LETTA_{name.upper()}_ADDRESS": f"127.0.0.1:{number}" for name, number in ports.items()}
    variables |= {f"LETTA_{name.upper()}_BIND": f"{host}:{number}" for name, number in ports.items()}
    variables |= {"LETTA_GATEWAY_BIND": f"{host}:{port}", "LETTA_DEV_MODE": str(dev).lower()}
    err.print(f"gRPC of the agent service on {host}:{grpc_port}, HTTP on http://{host}:{port}/docs")
    uvloop.run(processes.up(settings.home, settings.database_url.get_secret_value(), variables))


@app.command("demo")
def run_demo() -> None:
    """Tell an agent two facts over gRPC, restart everything, and ask for them back."""
    demo.main()


@db.command()
def upgrade() -> None:
    """Bring every schema of the database to the newest revision."""
    settings = Settings()
    databases: Any = importlib.import_module("letta_cli.databases")

    async def work(home: Path, url: str) -> None:
        async with databases.database(home, url):
            err.print("every schema is up to date")

    asyncio.run(work(settings.home, settings.database_url.get_secret_value()))


def main() -> None:
    """Run the command; what goes wrong is told in one sentence."""
    try:
        app()
    except (AppError, EmbeddedPostgresError, MigrationFailed, OSError) as error:
        fail(str(error))
    except ValidationError as error:
        fail("; ".join(_why(fault["loc"], fault["msg"]) for fault in error.errors()))
    except SettingsError as error:
        fail(str(error))
    except grpc.RpcError as error:
        fail(str(error))


def _why(place: Sequence[int | str], message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"{'.'.join(map(str, place))}: {text}" if place else text
