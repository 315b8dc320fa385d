"""The base of the family of errors, in a file of its own because the family is long."""

from __future__ import annotations

from typing import ClassVar

from letta_common.codes import Code


class AppError(Exception):
    """An expected failure. The message says what happened and what to do; variable parts stand in the metadata too."""

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init_subclass__(cls, *, code: Code | None = None, reason: str = "") -> None:
        """Give a class of the family its code and reason; one that names none keeps those it inherits."""
        if code is not None:
            cls.code, cls.reason = code, reason

    def __init__(self, message: str, /, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata
