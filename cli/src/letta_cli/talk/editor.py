"""Where the user types: with editing, history and completion on a terminal, line by line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from letta_cli.console import plain
from letta_common.process.home import home_directory


class PipeLines:
    """Reads lines of a pipe or a file."""

    def read(self, prompt: str) -> str | None:
        """Return the next line, None at the end."""
        del prompt
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None


class Editor:
    """Reads what a user types: arrows for editing and history, Tab for commands, Alt-Enter for another line."""

    def __init__(self, commands: Mapping[str, str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()

        @keys.add("escape", "enter")
        def _(event: Any) -> None:
            event.current_buffer.insert_text("\n")

        self._session: Any = PromptSession(
            history=_history(home_directory() / "chat_history"), completer=_completer(commands), key_bindings=keys
        )

    def read(self, prompt: str) -> str | None:
        """Return what was typed; None for Ctrl-D. Raises KeyboardInterrupt for Ctrl-C."""
        try:
            return str(self._session.prompt(plain(prompt)))
        except EOFError:
            return None


def fitting(commands: Mapping[str, str]) -> Editor | PipeLines:
    """Return what fits where stdin comes from."""
    return Editor(commands) if sys.stdin.isatty() and sys.stdout.isatty() else PipeLines()


def _history(path: Path) -> Any:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Before FileHistory makes it readable for everybody: what one says to an agent is private.
        path.touch(mode=0o600)
        with path.open("a"):
            return FileHistory(path)
    except OSError:  # a home that cannot be written to is no reason not to talk
        return InMemoryHistory()


def _completer(commands: Mapping[str, str]) -> Any:
    from prompt_toolkit.completion import Completer, Completion

    class Commands(Completer):
        def get_completions(self, document: Any, complete_event: Any) -> Iterable[Completion]:
            del complete_event
            typed = document.text_before_cursor
            if typed.startswith("/") and " " not in typed:
                for name, what in commands.items():
                    if name.startswith(typed):
                        yield Completion(name, start_position=-len(typed), display_meta=what)

    return Commands()
