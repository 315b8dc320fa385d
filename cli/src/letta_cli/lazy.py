"""Commands that are imported when they are called: `letta --help` and completion load none of them."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import typer.main
from typer.core import TyperCommand, TyperGroup


class CommandPlace(NamedTuple):
    """Where a command is, and what is said of it in the list of all."""

    module: str
    attribute: str
    help: str


COMMANDS = {
    "server": CommandPlace(
        "letta_cli.servers.commands", "server_app", "Run all services in one process, or one service."
    ),
    "up": CommandPlace("letta_cli.servers.commands", "up_app", "Run every service in a process of its own."),
    "chat": CommandPlace("letta_cli.talk.chat", "app", "Talk to an agent."),
    "agents": CommandPlace("letta_cli.agents", "app", "List, make, show and remove agents."),
    "keys": CommandPlace("letta_cli.keys", "app", "Make, list and remove API keys."),
    "db": CommandPlace("letta_cli.servers.commands", "db_app", "The database."),
    "demo": CommandPlace("letta_cli.demo", "app", "Tell an agent facts, restart everything, ask for them back."),
}


class LazyGroup(TyperGroup):
    """Lists every command by name and help, and imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, place in COMMANDS.items():
            # Placeholders with a name and a help text; `resolve_command` puts the real command in their place.
            self.add_command(TyperCommand(name=name, help=place.help))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the real command in the place of the listed one."""
        name, _, rest = super().resolve_command(ctx, args)
        if name is None:
            return name, None, rest
        place = COMMANDS[name]
        command = typer.main.get_command(getattr(importlib.import_module(place.module), place.attribute))
        command.name = name
        return name, command, rest
