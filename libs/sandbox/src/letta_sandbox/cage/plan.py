"""What the host tells a fork server at its start; plain values that travel as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

NAMESPACE, LANDLOCK, NONE = "namespace", "landlock", "none"

LOOPBACK, EXCHANGE = "loopback", "exchange"
"""Ways to the egress proxy: a listener in a network namespace with nothing else; streams that the host gives."""

# Exit code of a process that could not confine itself: EX_OSERR of sysexits.h.
SETUP_FAILED = 71

DEVICES = ("/dev/null", "/dev/urandom", "/dev/random")

RUNTIME_PLACE = 200
"""Descriptor of the runtime that the process of a call becomes: above all that a call may open."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Tier, what may be read, and which ids calls get. `pool_base` 0: calls keep the id of the service.

    `hidden` lies inside of `readable` and is left out of it. Calls import from `import_path`; the server alone also
    imports from `preload_path` before it isolates itself. Processes that wait for their call import `ahead`.
    With `programs` what is confined may start programs and processes.
    With a `runtime` the process of a call becomes that one, given these arguments; `executable` is what that takes.
    With `stage`, its limits, a process without privileges imports `ahead` once and forks those of calls.
    `network` is how calls reach the egress proxy, if they may at all; `certificates` are those that they trust.
    """

    tier: str
    readable: tuple[str, ...]
    hidden: tuple[str, ...]
    import_path: tuple[str, ...]
    preload_path: tuple[str, ...]
    preload: tuple[str, ...]
    pool_base: int
    pool_size: int
    prefork: int
    ahead: tuple[str, ...] = ()
    programs: bool = False
    runtime: str = ""
    runtime_arguments: tuple[str, ...] = ()
    executable: tuple[str, ...] = ()
    network: str = ""
    certificates: str = ""
    stage: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, data: bytes) -> Plan:
        """Read what `dumps` wrote."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(data).items()
        }
        return cls(**values)

    def dumps(self) -> bytes:
        """Return the plan as JSON."""
        return json.dumps(asdict(self)).encode()
