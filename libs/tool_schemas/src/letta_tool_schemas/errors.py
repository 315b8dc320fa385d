"""What the readers of source refuse."""

from __future__ import annotations


class SourceInvalid(Exception):
    """No schema can be read from the source, or no call can reach its function.

    `message` says why; `details` has what programs may want to know, such as `line`.
    """

    def __init__(self, message: str, **details: str) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
