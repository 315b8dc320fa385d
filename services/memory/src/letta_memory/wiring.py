"""Builds the memory service from its parts."""

from __future__ import annotations

from letta.memory.v1 import context_service_pb2_grpc
from letta_common.db import Database, DatabaseOptions
from letta_common.migrations import upgrade
from letta_common.service import Deps, Service

from letta_memory.domain.contexts import Contexts
from letta_memory.servicers.contexts import ContextServicer
from letta_memory.settings import MemorySettings
from letta_memory.store.contexts import SqlContextStore

SCHEMA = "memory"


async def build(settings: MemorySettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    dsn = settings.database_url.get_secret_value()
    await upgrade(dsn, package="letta_memory", schema=SCHEMA)
    db = await Database.open(
        dsn,
        schema=SCHEMA,
        options=DatabaseOptions(pool_size=settings.pool_size, application_name="letta-memory"),
    )
    contexts = Contexts(SqlContextStore(db, embed_messages=settings.embed_messages), deps.clock)
    return Service(
        name="memory",
        servicers=((context_service_pb2_grpc.add_ContextServiceServicer_to_server, ContextServicer(contexts)),),
        close=db.close,
    )
