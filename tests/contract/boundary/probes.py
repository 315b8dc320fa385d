"""Calls of every method with one value in each field that can hold it, and what they are answered."""

from __future__ import annotations

from typing import Any

import grpc

from letta.jsonmap.v1 import annotations_pb2
from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.contracts import call, holding, leaves, methods, name_of

Code = grpc.StatusCode
FAULTS = (Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED)


def bearer(deployment: Deployment) -> tuple[str, str]:
    return "authorization", f"Bearer {deployment.caller.secret}"


def raw(path: Any) -> bool:
    return bool(path[-1].GetOptions().Extensions[annotations_pb2.field].raw)


def codes(deployment: Deployment, kind: int, value: Any, keep: Any = lambda _: True) -> dict[str, Code]:
    """Put a value in each field of a type, one call each; return the codes by method and field."""
    found = {}
    for method in methods():
        for path in leaves(method.input_type, kind):
            if keep(path):
                request = holding(method, deployment.caller.owned, path, value)
                found[f"{method.full_name} {name_of(path)}"] = call(
                    deployment.channel, method, request, bearer(deployment)
                )[0]
    return found
