"""`letta keys`: make, list and remove API keys."""

from __future__ import annotations

import asyncio
import importlib
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from letta.auth.v1 import api_key_service_pb2 as api
from letta.auth.v1 import api_key_service_pb2_grpc
from letta_cli.agents import CALL_SECONDS
from letta_cli.connection import DEFAULT_ADDRESS, AddressOption, JsonOption, connected
from letta_cli.console import as_json, err, out, table

app = typer.Typer(no_args_is_help=True, help="Make, list and remove API keys.")
ScopeOption = Annotated[list[str] | None, typer.Option("--scope", help="read, write, keys or admin; repeatable.")]


@app.command()
def create(name: str, scope: ScopeOption = None, address: AddressOption = DEFAULT_ADDRESS) -> None:
    """Make a key and print its secret, which is shown this once."""
    with connected(address) as channel:
        stub = api_key_service_pb2_grpc.APIKeyServiceStub(channel)
        request = api.CreateAPIKeyRequest(name=name, scopes=scope or [])
        made = stub.CreateAPIKey(request, timeout=CALL_SECONDS)
    err.print(f"[dim]{made.api_key.id}; export LETTA_API_KEY=<the line below>[/dim]")
    out.print(made.secret, markup=False, soft_wrap=True)


@app.command()
def bootstrap() -> None:
    """Make the first administrator's key on the deployment's database and print its secret."""
    wiring: Any = importlib.import_module("letta_auth.wiring")
    settings: Any = importlib.import_module("letta_auth.settings").AuthSettings()

    databases: Any = importlib.import_module("letta_cli.databases")

    async def work() -> str | None:
        async with databases.database(settings.home, settings.database_url.get_secret_value()) as url:
            made: str | None = await wiring.bootstrap_admin_key(
                settings.model_copy(update={"database_url": SecretStr(url)})
            )
            return made

    secret = asyncio.run(work())
    if secret is None:
        err.print("there is an administrator's key already")
        return
    out.print(secret, markup=False, soft_wrap=True)


@app.command("list")
def list_keys(address: AddressOption = DEFAULT_ADDRESS, as_json_: JsonOption = False) -> None:
    """List keys, newest first."""
    with connected(address) as channel:
        stub = api_key_service_pb2_grpc.APIKeyServiceStub(channel)
        found = stub.ListAPIKeys(api.ListAPIKeysRequest(), timeout=CALL_SECONDS).api_keys
    if as_json_:
        as_json(found)
        return
    table(["id", "name", "scopes"], [[key.id, key.name, " ".join(key.scopes)] for key in found])


@app.command()
def delete(api_key_id: str, address: AddressOption = DEFAULT_ADDRESS) -> None:
    """Remove a key; it stops working within 30 seconds everywhere."""
    with connected(address) as channel:
        stub = api_key_service_pb2_grpc.APIKeyServiceStub(channel)
        stub.DeleteAPIKey(api.DeleteAPIKeyRequest(api_key_id=api_key_id), timeout=CALL_SECONDS)
    err.print(f"removed {api_key_id}")
