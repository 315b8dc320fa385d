"""Builds the tools service from its parts."""

from __future__ import annotations

from letta.tools.v1 import tool_service_pb2_grpc
from letta_common.db import Database, DatabaseOptions
from letta_common.migrations import upgrade
from letta_common.service import Deps, Service

from letta_tools.domain.builtin import builtin_tools
from letta_tools.domain.tools import Tools
from letta_tools.servicers.tools import ToolServicer
from letta_tools.settings import ToolsSettings
from letta_tools.store.tools import SqlToolStore

SCHEMA = "tools"


async def build(settings: ToolsSettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    dsn = settings.database_url.get_secret_value()
    await upgrade(dsn, package="letta_tools", schema=SCHEMA)
    db = await Database.open(
        dsn, schema=SCHEMA, options=DatabaseOptions(pool_size=settings.pool_size, application_name="letta-tools")
    )
    tools = Tools(SqlToolStore(db), deps.clock, builtin_tools())
    return Service(
        name="tools",
        servicers=((tool_service_pb2_grpc.add_ToolServiceServicer_to_server, ToolServicer(tools)),),
        close=db.close,
    )
