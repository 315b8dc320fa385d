"""`letta server`, `letta up`, `letta db`: what runs or prepares services."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from pydantic import SecretStr

from letta_cli.console import fail, note, panel, secret
from letta_cli.servers import preflight, processes
from letta_cli.servers.databases import database
from letta_common.process.settings import PEERS, Settings
from letta_embedded_postgres import EmbeddedPostgresError
from letta_rpc.startup.lifetime import begin, failures_told, leave, starting

S = TypeVar("S", bound=Settings)
HINT = "Talk to it: letta chat (in another terminal, from .venv/bin or wherever this command is)"
DevOption = Annotated[bool, typer.Option("--dev", help="Serve callers without a credential as the default user.")]
HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port of HTTP.")]
GrpcPortOption = Annotated[int, typer.Option("--grpc-port", min=1, max=65535, help="Port of gRPC.")]

server_app = typer.Typer(add_completion=False)
up_app = typer.Typer(add_completion=False)
db_app = typer.Typer(add_completion=False, no_args_is_help=True, help="The database.")


@server_app.command()
def server(
    service: Annotated[str, typer.Argument(help="One service, or all of them in one process.")] = "all",
    dev: DevOption = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8283,
    grpc_port: GrpcPortOption = 50051,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that each serve all; one a core.")] = 1,
    banner: Annotated[bool, typer.Option("--banner/--no-banner", help="Say at the end what runs where.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing of the start.")] = False,
) -> None:
    """Run all services in one process, or one service."""
    if service != "all":
        names = [*PEERS, "gateway"]
        if service not in names:
            fail(f"there is no service `{service}`; there are {', '.join(names)}")
        if workers > 1:
            fail("--workers goes with all services; a single one is started as often as it is wanted")
        os.execv(sys.executable, [sys.executable, "-m", f"letta_{service}"])
    arguments: dict[str, Any] = {"bind": f"{host}:{grpc_port}"} | ({"dev_mode": True} if dev else {})
    with failures_told(EmbeddedPostgresError):
        settings = begin(Settings, **arguments)
        preflight.check(settings, {"--grpc-port": f"{host}:{grpc_port}", "--port": f"{host}:{port}"})
        progress = _silent if quiet else note
        if workers > 1:
            progress(f"gRPC on {settings.bind}, HTTP on http://{host}:{port}/docs")
            variables = _shared_variables(dev=dev) | {
                "LETTA_BIND": settings.bind,
                "LETTA_GATEWAY_BIND": f"{host}:{port}",
            }
            uvloop.run(processes.workers(settings, workers, variables, progress))
        else:
            _run(settings, arguments, f"{host}:{port}", progress, banner=banner and not quiet)
    leave()


def _run(
    settings: Settings, arguments: dict[str, Any], http_bind: str, progress: Callable[[str], None], *, banner: bool
) -> None:
    start = ExitStack()
    start.enter_context(starting())
    progress("loading the services ...")
    from letta_cli.servers.stack import serve_all  # noqa: PLC0415 seconds, which the line above tells of

    async def started(admin_key: str | None) -> None:
        start.close()
        if admin_key:
            secret("The administrator's key, shown this once:", admin_key)
        if banner:
            lines = await asyncio.to_thread(_banner, settings, http_bind)
            panel("Letta on gRPC", lines)

    uvloop.run(serve_all(arguments, http_bind, started, progress))


def _silent(_: str) -> None:
    """Say nothing."""


def _banner(settings: Settings, http_bind: str) -> list[str]:
    from letta_cli.servers import engines  # noqa: PLC0415 it brings gRPC, which `letta up` does without

    return [f"gRPC  {settings.bind}", f"HTTP  http://{http_bind}/docs", engines.banner(settings.bind, settings), HINT]


@up_app.command()
def up(
    dev: DevOption = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8283,
    grpc_port: GrpcPortOption = 50051,
) -> None:
    """Run every service in a process of its own."""
    ports = {name: grpc_port + offset for offset, name in enumerate(PEERS)}
    variables = {f"LETTA_{name.upper()}_ADDRESS": f"127.0.0.1:{number}" for name, number in ports.items()}
    variables |= {f"LETTA_{name.upper()}_BIND": f"{host}:{number}" for name, number in ports.items()}
    variables |= {"LETTA_GATEWAY_BIND": f"{host}:{port}"} | _shared_variables(dev=dev)
    with failures_told(EmbeddedPostgresError):
        settings = begin(Settings)
        binds = {f"--grpc-port ({name})": f"{host}:{number}" for name, number in ports.items()}
        preflight.check(settings, {**binds, "--port": f"{host}:{port}"})
        note(f"gRPC of the agent service on {host}:{grpc_port}, HTTP on http://{host}:{port}/docs")
        uvloop.run(processes.up(settings, variables, note))


def _shared_variables(*, dev: bool) -> dict[str, str]:
    """Return the variables of each process that serves; the one that started them has warned of unknown settings."""
    return {"LETTA_UNKNOWN_SETTINGS": "ignore"} | ({"LETTA_DEV_MODE": "true"} if dev else {})


@db_app.callback()
def db() -> None:
    """Prepare the database."""


@db_app.command()
def upgrade() -> None:
    """Bring every schema of the database to the newest revision."""

    async def work(settings: Settings) -> None:
        async with database(settings, _schemas(), note):
            note("every schema is up to date")

    with failures_told(EmbeddedPostgresError):
        asyncio.run(work(_prepared(Settings)))


@db_app.command()
def reindex() -> None:
    """Index all texts anew, those of former releases too; goes on where it stopped, while services run."""
    from letta_memory.settings import MemorySettings  # noqa: PLC0415 no other command of these needs the service
    from letta_memory.wiring import reindex as index_anew  # noqa: PLC0415

    async def work(settings: MemorySettings) -> int:
        async with database(settings, _schemas(), note) as url:
            return await index_anew(settings.model_copy(update={"database_url": SecretStr(url)}), note)

    with failures_told(EmbeddedPostgresError):
        if failed := asyncio.run(work(_prepared(MemorySettings))):
            fail(f"texts of {failed} archives or agents are not indexed anew; the log says why: run it again to go on")
        note("all texts are indexed anew")


def _schemas() -> Callable[[str], Awaitable[None]]:
    from letta_cli.servers.schemas import upgrade_all  # noqa: PLC0415 `letta up` leaves it to another process

    return upgrade_all


def first_key() -> str | None:
    """Make the first administrator's key on the deployment's database; None when there is one."""
    from letta_auth.settings import AuthSettings  # noqa: PLC0415 no other command of these needs the service
    from letta_auth.wiring import bootstrap_admin_key  # noqa: PLC0415

    async def work(settings: AuthSettings) -> str | None:
        async with database(settings, _schemas()) as url:
            return await bootstrap_admin_key(settings.model_copy(update={"database_url": SecretStr(url)}))

    with failures_told(EmbeddedPostgresError):
        return asyncio.run(work(_prepared(AuthSettings)))


def _prepared(kind: type[S]) -> S:
    settings = begin(kind)
    preflight.check(settings, {})
    return settings
