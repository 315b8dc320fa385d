"""Which model answers by default, as the server says it."""

from __future__ import annotations

import grpc

from letta.llm.v1 import model_service_pb2, model_service_pb2_grpc
from letta_cli.connection import CALL_SECONDS, connected
from letta_common.clock import SystemClock
from letta_common.process.settings import Settings
from letta_rpc.boundary import SERVICE_KEY
from letta_rpc.service_identity import ServiceIdentity

_METHOD = "letta.llm.v1.ModelService/GetDefaultModel"


def banner(target: str, settings: Settings) -> str:
    """Say which model answers by default, and why."""
    found = default_engine(target, settings)
    return found.banner or f"{found.handle}: {found.reason}"


def default_engine(target: str, settings: Settings) -> model_service_pb2.GetDefaultModelResponse:
    """Ask the server for its default model, as a service of the deployment."""
    identity = ((SERVICE_KEY, ServiceIdentity("cli", settings.secret(), SystemClock()).of(_METHOD, b"")),)
    with connected(target) as channel:
        return _ask(channel, identity)


def _ask(channel: grpc.Channel, identity: tuple[tuple[str, bytes], ...]) -> model_service_pb2.GetDefaultModelResponse:
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    return stub.GetDefaultModel(model_service_pb2.GetDefaultModelRequest(), timeout=CALL_SECONDS, metadata=identity)
