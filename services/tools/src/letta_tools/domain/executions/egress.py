"""What tools may reach: what the operator opens for all, and what each organization may open for itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from letta_common.errors import InvalidArgument
from letta_sandbox.destinations import Destination, read_destinations


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What an organization may open for itself."""

    destinations: tuple[Destination, ...] = ()

    def check(self, texts: Iterable[str]) -> tuple[Destination, ...]:
        """Return the destinations of these texts. Raises InvalidArgument for one above the ceiling."""
        wanted = read_destinations(texts)
        for destination in wanted:
            if not any(destination.within(limit) for limit in self.destinations):
                raise InvalidArgument(
                    f"{destination} is not among what this deployment lets organizations open "
                    "(setting tools_egress_hosts_of_organizations)",
                    field="egress_hosts",
                )
        return wanted

    def cut(self, texts: Iterable[str]) -> tuple[Destination, ...]:
        """Return the destinations that are within the ceiling as it is now."""
        # The operator may have lowered the ceiling since these were written.
        return tuple(
            each for each in read_destinations(texts) if any(each.within(limit) for limit in self.destinations)
        )


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What a deployment opens for the tools of every organization, and what it lets each open for itself."""

    operator: tuple[Destination, ...] = ()
    ceiling: Ceiling = field(default_factory=Ceiling)
