"""Why a file has no text. The name of the class is what the caller is told."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


class Fault(Exception):
    """A file that cannot be read; the message says why."""


class Unsupported(Fault):
    """Not a file that has text, or none that can be read here."""


class Corrupt(Fault):
    """A file that breaks its own format."""


class Protected(Fault):
    """A file that needs a password."""


class TooLarge(Fault):
    """A file whose text, or what it unpacks to, is beyond the limits."""


_MUCH = 0.4


def _short_of_memory() -> bool:
    """Whether this process has held so much that the next doubling of a buffer may have failed."""
    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    # ru_maxrss counts KiB.
    return most != resource.RLIM_INFINITY and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 > _MUCH * most


@contextlib.contextmanager
def parsing(what: str) -> Iterator[None]:
    """Take every error of a parser but want of memory as a fault of the file. Raises Fault."""
    try:
        yield
    except (Fault, MemoryError):
        raise
    except Exception as error:
        if _short_of_memory():  # which parsers written in C report as anything
            raise MemoryError from error
        raise Corrupt(f"it is no {what} that can be read: {type(error).__name__}: {error}"[:500]) from error


def require_installed(module: object, what: str) -> None:
    """Raises Unsupported when a parser is not installed."""
    if module is None:
        raise Unsupported(f"reading {what} needs the extra `formats` of letta-documents, which is not installed")
