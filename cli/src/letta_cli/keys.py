"""`letta keys`: make, list and remove API keys."""

from __future__ import annotations

from typing import Annotated

import grpc
import typer

from letta.auth.v1 import api_key_service_pb2 as api
from letta.auth.v1 import api_key_service_pb2_grpc
from letta.common.v1.actor_pb2 import Scope
from letta_cli import names
from letta_cli.connection import CALL_SECONDS, JsonOption, remote
from letta_cli.console import as_json, note, secret, table
from letta_rpc.verdicts import scopes_of, words_of

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Make, list and remove API keys.")


def _scope(word: str) -> str:
    """Return a word that is a scope."""
    words = words_of(Scope.values())
    if word not in words:
        raise typer.BadParameter(f"there is no scope `{word}`; use one of {', '.join(sorted(words))}")
    return word


_HELP = "read, write, keys or admin; repeatable."
ScopeOption = Annotated[list[str] | None, typer.Option("--scope", parser=_scope, help=_HELP)]


@app.command()
@remote
def create(channel: grpc.Channel, name: str, scope: ScopeOption = None) -> None:
    """Make a key and print its secret, which is shown this once."""
    stub = api_key_service_pb2_grpc.APIKeyServiceStub(channel)
    made = stub.CreateAPIKey(api.CreateAPIKeyRequest(name=name, scopes=scopes_of(scope or [])), timeout=CALL_SECONDS)
    secret(f"{made.api_key.id}; export LETTA_API_KEY=<the line below>", made.secret)


@app.command()
def bootstrap() -> None:
    """Make the first administrator's key on the deployment's database and print its secret."""
    from letta_cli.servers.commands import first_key  # noqa: PLC0415 it needs the auth service itself

    made = first_key()
    if made is None:
        note("there is an administrator's key already; `letta keys create` makes more")
        return
    secret("The administrator's key, shown this once:", made)


@app.command("list")
@remote
def list_keys(channel: grpc.Channel, as_json_: JsonOption = False) -> None:
    """List keys, newest first."""
    found = names.list_keys(channel)
    if as_json_:
        as_json(found)
        return
    table(["id", "name", "scopes"], [[key.id, key.name, " ".join(sorted(words_of(key.scopes)))] for key in found])


@app.command()
@remote
def delete(channel: grpc.Channel, key: Annotated[str, typer.Argument(help="Id or name.")]) -> None:
    """Remove a key; it stops working within 30 seconds everywhere."""
    found = names.find_key(channel, key)
    stub = api_key_service_pb2_grpc.APIKeyServiceStub(channel)
    stub.DeleteAPIKey(api.DeleteAPIKeyRequest(api_key_id=found), timeout=CALL_SECONDS)
    note(f"removed {found}")
