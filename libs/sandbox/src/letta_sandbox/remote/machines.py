"""What remote providers are made of: machines that run jobs, and those who have machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from letta_sandbox.calls import Isolation, Limits

ROLE = "letta-role"
OWNER = "letta-owner"
UNTIL = "letta-until"
TOOL_CALL = "tool-call"
ANSWER_SECONDS = 30.0
_OVERHEAD_BYTES = 128 << 20


class MachineFailed(Exception):
    """No machine could be started, or it ended before it got the job; the message says why."""


class MachinesBusy(MachineFailed):
    """There is no room for another machine now; asking again may help."""


class MachineLost(Exception):
    """A machine has failed after it was given the job: nobody knows how far it got."""


class MachineOutOfMemory(Exception):
    """The machine was ended because its memory ran out."""


class TooMuchOutput(Exception):
    """The machine wrote more than an answer can have."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a machine must hold, how long it may exist, the labels by which it is found again, what it is made of."""

    limits: Limits
    package_bytes: int
    seconds: int
    labels: Mapping[str, str] = field(default_factory=dict)
    template: str = ""

    @property
    def scratch_bytes(self) -> int:
        """How large the directory is that calls may write to; packages are unpacked there too."""
        return self.limits.scratch_bytes + 2 * self.package_bytes

    @property
    def memory_bytes(self) -> int:
        """How much memory the machine has, which its scratch directory and the job are part of."""
        return self.limits.memory_bytes + self.scratch_bytes + self.package_bytes + _OVERHEAD_BYTES

    @property
    def idle_command(self) -> list[str]:
        """What a machine does between jobs; it ends by itself should nobody be left to end it."""
        return ["python3", "-I", "-S", "-c", f"import time; time.sleep({self.seconds})"]


@dataclass(frozen=True, slots=True)
class Job:
    """What a machine does: run `command`, give `data` to its standard input, return what it writes."""

    command: tuple[str, ...]
    data: bytes
    limits: Limits
    most_bytes: int

    @property
    def patience(self) -> float:
        """How long to wait for the answer, which watches the time of the call by itself."""
        return self.limits.timeout_seconds + ANSWER_SECONDS


class Machine(Protocol):
    """One machine. It runs one job at a time."""

    async def run(self, job: Job) -> bytes:
        """Run a job. Raises MachineFailed, MachineLost, MachineOutOfMemory, TooMuchOutput."""
        ...

    async def end(self) -> None:
        """End the machine and what runs on it. Raises MachineFailed; a machine that has ended already is no failure."""
        ...


@dataclass(frozen=True, slots=True)
class StandingMachine:
    """A machine that exists, and its labels."""

    machine: Machine
    labels: Mapping[str, str]


class Machines(Protocol):
    """Where machines come from."""

    name: str
    isolation: Isolation

    async def closed_to(self) -> Sequence[tuple[str, int]]:
        """Return addresses that no machine may reach; a real call tries them first. Raises MachineFailed."""
        ...

    async def start(self, shape: Shape) -> Machine:
        """Start a machine. It is never cancelled. Raises MachineFailed, MachinesBusy."""
        ...

    async def standing(self) -> Sequence[StandingMachine]:
        """Return the machines with our role, whoever started them. Raises MachineFailed."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


class Output:
    """What a job writes, up to the most that an answer has."""

    def __init__(self, most_bytes: int) -> None:
        self._parts: list[bytes] = []
        self._left = most_bytes
        self._most = most_bytes

    def add(self, piece: bytes) -> None:
        """Take what was written. Raises TooMuchOutput."""
        self.count(len(piece))
        self._parts.append(piece)

    def count(self, size: int) -> None:
        """Count what was written and is not kept. Raises TooMuchOutput."""
        self._left -= size
        if self._left < 0:
            raise TooMuchOutput(f"the machine wrote more than {self._most} bytes")

    def written(self) -> bytes:
        """Return all of it."""
        return b"".join(self._parts)
