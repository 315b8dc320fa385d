"""Compiles a function for each message, once, when it is first asked for."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from letta_transcode.mapping.plans import MappingError, MessagePlan

if TYPE_CHECKING:
    from letta_transcode.descriptors.catalog import Catalog
    from letta_transcode.mapping.plans import Planner

Made = TypeVar("Made")


class Compiler(ABC, Generic[Made]):
    """Functions of a catalog's messages, which call each other in one scope."""

    parameters: ClassVar[str]
    """What each function takes."""

    def __init__(self, catalog: Catalog, planner: Planner, scope: dict[str, Any]) -> None:
        self._catalog = catalog
        self._planner = planner
        self._scope = scope
        self._numbers = itertools.count()
        self._names: dict[str, str] = {}
        self._enums: dict[str, str] = {}

    def message(self, name: str) -> Made:
        """Return the function of a message. Raises MappingError."""
        return self._whole(lambda: self._function(name))

    @abstractmethod
    def _body(self, plan: MessagePlan) -> list[str]:
        """Return the lines of a message's function."""

    def _whole(self, make: Callable[[], str]) -> Made:
        """Keep what a compilation made only when all of it could be made, since functions call each other."""
        before = dict(self._names)
        try:
            made: Made = self._scope[make()]
        except MappingError:
            self._names = before
            raise
        return made

    def _function(self, name: str) -> str:
        known = self._names.get(name)
        if known is None:
            # Named before its body is written, since a message may contain itself.
            known = self._names[name] = f"message_{next(self._numbers)}"
            self._compile(known, self._body(self._planner.plan(name)))
        return known

    def _apart(self, body: list[str]) -> str:
        """Compile a function that is no message's own; return its name."""
        function = f"apart_{next(self._numbers)}"
        self._compile(function, body)
        return function

    def _compile(self, function: str, body: list[str]) -> None:
        source = f"def {function}({self.parameters}):\n" + "\n".join(f"    {line}" for line in body)
        exec(compile(source, f"<{function}>", "exec"), self._scope)  # noqa: S102  generated from descriptors alone

    def _constant(self, value: Any) -> str:
        name = f"constant_{next(self._numbers)}"
        self._scope[name] = value
        return name
