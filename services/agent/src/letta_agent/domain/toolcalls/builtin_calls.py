"""Calls of built-in tools, and how their arguments are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from letta_agent.domain.journal.records import RunKey

Arguments = Mapping[str, Any]
_MOST = 2**31 - 1  # numbers of the contract are int32


class BuiltinArgumentError(Exception):
    """The model called a built-in tool with arguments it does not take."""


@dataclass(frozen=True, slots=True)
class BuiltinCall:
    """A call of a built-in tool in a run."""

    run: RunKey
    key: str
    """`run_id:step:call_index`."""
    name: str
    arguments: Arguments
    timezone: str = ""
    """Where the agent lives; empty: UTC."""
    call_id: str = ""
    message_id: str = ""
    """The message with the call; both are empty where no model made it."""

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text argument. Raises BuiltinArgumentError when it is missing or no text."""
        value = self.arguments.get(name, default)
        if value is None:
            raise BuiltinArgumentError(f"{self.name}() missing required argument: '{name}'")
        if not isinstance(value, str):
            raise BuiltinArgumentError(f"{self.name}(): '{name}' must be a string")
        return value

    def number(self, name: str, default: int) -> int:
        """Return a whole number. Raises BuiltinArgumentError."""
        value = self.arguments.get(name)
        if value is None:
            return default
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise BuiltinArgumentError(f"{self.name}(): '{name}' must be an integer") from error
        if not -_MOST <= number <= _MOST:
            raise BuiltinArgumentError(f"{self.name}(): '{name}' must be between {-_MOST} and {_MOST}")
        return number

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; one text counts as a list. Raises BuiltinArgumentError."""
        value = self.arguments.get(name) or ()
        if isinstance(value, str):
            value = (value,)
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise BuiltinArgumentError(f"{self.name}(): '{name}' must be a list of strings")
        return tuple(value)

    def flag(self, name: str) -> bool:
        """Return a truth value, false where it is missing. Raises BuiltinArgumentError."""
        value = self.arguments.get(name)
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        if value is not None and not isinstance(value, bool):
            raise BuiltinArgumentError(f"{self.name}(): '{name}' must be true or false")
        return bool(value)
