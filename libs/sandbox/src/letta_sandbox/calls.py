"""What one isolated call is: its request, limits, outcome, and the Protocol of those who can run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Protocol, TypeVar

from letta_sandbox.destinations import Destinations

_Number = TypeVar("_Number", int, float)


class CallEnding(Enum):
    """How a call ended."""

    SUCCESS = "SUCCESS"
    TOOL_ERROR = "TOOL_ERROR"
    TIMEOUT = "TIMEOUT"
    MEMORY = "MEMORY"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    BAD_RESULT = "BAD_RESULT"
    CRASHED = "CRASHED"
    DENIED = "DENIED"
    REFUSED = "REFUSED"


class Isolation(IntEnum):
    """How strongly a call is isolated; more is stronger."""

    NONE = 1
    LANDLOCK = 2
    NAMESPACE = 3
    VM = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may use. Sizes are bytes; `output_bytes` counts standard output and error together."""

    timeout_seconds: float = 30.0
    memory_bytes: int = 256 << 20
    scratch_bytes: int = 64 << 20
    processes: int = 64
    output_bytes: int = 1 << 20
    result_bytes: int = 1 << 20
    open_files: int = 64

    def cut_to(self, most: Limits) -> Limits:
        """Return these limits, none of them above `most`; zero and less mean `most`."""
        return Limits(
            timeout_seconds=_cut(self.timeout_seconds, most.timeout_seconds),
            memory_bytes=_cut(self.memory_bytes, most.memory_bytes),
            scratch_bytes=_cut(self.scratch_bytes, most.scratch_bytes),
            processes=_cut(self.processes, most.processes),
            output_bytes=_cut(self.output_bytes, most.output_bytes),
            result_bytes=_cut(self.result_bytes, most.result_bytes),
            open_files=_cut(self.open_files, most.open_files),
        )


def _cut(value: _Number, most: _Number) -> _Number:
    return min(value, most) if value > 0 else most


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """What must be installed before a call: packages as requirement specifiers, the tenant that asks, and where to."""

    requirements: tuple[str, ...] = ()
    organization_id: str = ""
    template: str = ""


@dataclass(frozen=True, slots=True)
class Env:
    """An installed set of packages. The empty key is the bare environment.

    `modules` may be imported ahead of a call, in the process of that call.
    """

    key: str = ""
    path: str = ""
    organization_id: str = ""
    modules: tuple[str, ...] = ()


class Language(Enum):
    """What the source of a call is written in."""

    PYTHON = "python"
    JAVASCRIPT = "javascript"


@dataclass(frozen=True, slots=True)
class Signature:
    """How a JavaScript function takes its arguments: in which order, which it needs, or as one object."""

    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    as_object: bool = False


@dataclass(frozen=True, slots=True)
class SandboxCall:
    """One call of one function. `arguments` and `agent_state` are JSON objects as text.

    A JavaScript function is one that its module exports, and needs a `signature`. `destinations` are all that it may
    reach over the network. What is `borrowed` the source uses without an import: names, each with the module
    that it comes from and the attribute there that it stands for, or nothing for the module itself. The `template` is
    what its machine is made of, for a vendor that knows templates; by default the provider's. An `attachment` is what
    a Python function gets as its argument of that name.
    """

    source_code: str
    function: str
    arguments: str = "{}"
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    agent_state: str = ""
    limits: Limits = field(default_factory=Limits)
    min_isolation: Isolation = Isolation.NONE
    destinations: Destinations = field(default_factory=Destinations)
    language: Language = Language.PYTHON
    signature: Signature = field(default_factory=Signature)
    borrowed: tuple[tuple[str, str, str], ...] = ()
    template: str = ""
    attachment: bytes | None = None


@dataclass(frozen=True, slots=True)
class CallUsage:
    """What a call used: seconds on the clock, and as its process reports seconds of processor and largest memory."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ToolFailure:
    """Why a call has no result: the class of the exception, a sentence, and the tool's own frames."""

    kind: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """How a call ended. `result` is JSON text and set for SUCCESS alone."""

    status: CallEnding
    isolation: Isolation
    provider: str
    result: str = ""
    failure: ToolFailure | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    usage: CallUsage = field(default_factory=CallUsage)
    changed_blocks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """What a provider offers here, and a sentence for each stronger tier that is not to be had."""

    provider: str
    isolation: Isolation | None
    missing: tuple[str, ...] = ()


class SandboxProvider(Protocol):
    """Somebody who can run a call in isolation."""

    async def start(self) -> None:
        """Begin; what an earlier process left behind is ended."""
        ...

    async def probe(self) -> IsolationReport:
        """Find out by a real call which isolation this provider offers."""
        ...

    async def prepare(self, spec: EnvSpec) -> Env:
        """Install what a tool requires. Raises InvalidArgument, ServiceUnavailable."""
        ...

    async def run(self, call: SandboxCall, env: Env) -> Result:
        """Run one call to its end, when it is the turn of its organization; whatever the tool does is a status.

        Raises:
            IsolationUnavailable: nothing here isolates strongly enough.
            RateLimited: too many calls of the organization wait, or none could begin in time.
        """
        ...

    async def close(self) -> None:
        """End every call and process."""
        ...
