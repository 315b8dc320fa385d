"""The `letta` command: servers, a chat, agents, keys, databases. Another product has a command of this name as well;
where both are installed, `letta-server` is this one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from letta_cli.lazy import LazyGroup
from letta_common.app_error import AppError

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines on stderr; what they say is in the errors as well

app = typer.Typer(
    cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, help="Stateful agents over gRPC."
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415 a thirtieth of a second, for this option alone

        sys.stdout.write(f"{Path(sys.argv[0]).name.removesuffix('.py')} {version('letta-cli')} (Letta on gRPC)\n")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say which version this is.")
    ] = False,
) -> None:
    """Stateful agents over gRPC."""


def main() -> None:
    """Run the command; an error is printed as one sentence."""
    try:
        app()
    except (AppError, OSError) as error:
        _fail(str(error))


def _fail(text: str) -> None:
    from letta_cli.console import fail  # noqa: PLC0415 a command that does well needs no colours

    fail(text)
