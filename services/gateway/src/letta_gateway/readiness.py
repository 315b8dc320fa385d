"""Which services behind the gateway do not serve now, by their own word (`grpc.health.v1`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 2.0


class Readiness:
    """Asks the services for their health when somebody asks the gateway for its own."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._stubs = {name: health_pb2_grpc.HealthStub(channel) for name, channel in channels.items()}

    async def missing(self) -> list[str]:
        """Return the names of the services that do not serve, or do not answer in time."""
        serving = await asyncio.gather(*map(self._serves, self._stubs.values()))
        return [name for name, good in zip(self._stubs, serving, strict=True) if not good]

    async def _serves(self, stub: health_pb2_grpc.HealthStub) -> bool:
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.UNIMPLEMENTED  # it answers, and has no word for how it is
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
