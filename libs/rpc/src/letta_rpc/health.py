"""What `grpc.health.v1` says of a process: each service is healthy while what it cannot serve without is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from letta_common.app_error import AppError
from letta_common.process.periodic import Periodic
from letta_local_channel import LocalServer
from letta_rpc.service import Service

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = structlog.get_logger("letta.health")


class Health:
    """Asks the services of a process for signs of life and says what came: by gRPC service, and for all as `""`."""

    def __init__(self, services: Sequence[Service], every: float) -> None:
        self.servicer = health_aio.HealthServicer()
        self._services = {service: served_names(service) for service in services}
        self._well: Mapping[str, bool] = {}
        self._looks = Periodic("health", self._look, every)

    async def start(self) -> None:
        """Say how everything is, and go on doing so."""
        await self._look()
        self._looks.start()

    async def stop(self) -> None:
        """Say NOT_SERVING from here on."""
        await self._looks.stop()
        await self.servicer.enter_graceful_shutdown()

    async def _look(self) -> None:
        well = await asyncio.gather(*(_is_well(service) for service in self._services))
        for (service, names), good in zip(self._services.items(), well, strict=True):
            self._log_change(service.name, good)
            for name in names:
                await self.servicer.set(name, _SERVING if good else _NOT_SERVING)
        self._well = dict(zip((service.name for service in self._services), well, strict=True))
        await self.servicer.set("", _SERVING if all(well) else _NOT_SERVING)

    def _log_change(self, name: str, good: bool) -> None:
        before = self._well.get(name, True)
        if before and not good:
            _log.warning("the database of a service does not answer; it is not serving", service=name)
        elif good and not before:
            _log.info("the database of a service answers again", service=name)


def served_names(service: Service) -> list[str]:
    """Return the full names of the gRPC services that a service serves."""
    names = LocalServer()
    service.register(names)
    return sorted({path.split("/")[1] for path in names.methods})


async def _is_well(service: Service) -> bool:
    try:
        await service.alive()
    except AppError:
        return False
    return True
