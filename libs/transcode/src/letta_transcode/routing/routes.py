"""The routes of all servers together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from letta_transcode.mapping.codecs import Codecs
from letta_transcode.mapping.plans import MappingError
from letta_transcode.routing.operations import Operation, UpstreamMethod, describe, operation, path_of, rules
from letta_transcode.routing.templates import Router, TemplateError, parse

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from letta_transcode.descriptors.catalog import Catalog


Absent = Mapping[tuple[str, str], str]
"""Operations that no server has, by verb and path, and why: they answer 501 with it."""


@dataclass(frozen=True, slots=True)
class Absence:
    """Stands where an operation would."""

    why: str


@dataclass(slots=True)
class PeerRoutes:
    """What one server offers, compiled. A method that cannot be mapped is left out and named in `problems`."""

    peer: str
    codecs: Codecs
    operations: list[Operation] = field(default_factory=list)
    methods: list[UpstreamMethod] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Routes:
    """What all servers offer."""

    router: Router[Operation | Absence] = field(default_factory=Router)
    operations: list[tuple[PeerRoutes, Operation]] = field(default_factory=list)
    methods: dict[str, UpstreamMethod] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def compile_peer(peer: str, catalog: Catalog) -> PeerRoutes:
    """Compile the methods of one server."""
    made = PeerRoutes(peer, Codecs(catalog))
    for service in catalog.services():
        for method in service.methods:
            _add(made, method)
    made.problems.extend(f"{name} is not described" for name in catalog.undescribed)
    return made


def merge(peers: Iterable[PeerRoutes], absent: Absent | None = None) -> Routes:
    """Put the routes of servers together. What came first keeps its verb and path; what is absent comes last."""
    routes = Routes()
    for peer in peers:
        routes.problems.extend(peer.problems)
        for method in peer.methods:
            routes.methods.setdefault(method.path, method)
        for each in peer.operations:
            if routes.router.add(each.verb, each.template, each):
                routes.operations.append((peer, each))
            else:
                routes.problems.append(f"{each.verb} {each.template.text} of {each.method.path} is taken")
    for (verb, path), why in (absent or {}).items():
        routes.router.add(verb, parse(path), Absence(why))
    return routes


def _add(made: PeerRoutes, method: MethodDescriptor) -> None:
    made.methods.append(describe(made.peer, made.codecs, method))
    rule = made.codecs.catalog.http_rule(method)
    if rule is None or made.methods[-1].internal:
        return
    for each in rules(rule):
        try:
            made.operations.append(operation(made.peer, made.codecs, method, each, parse(path_of(each))))
        except (MappingError, TemplateError) as error:
            made.problems.append(f"{method.full_name}: {error}")
