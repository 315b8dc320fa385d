"""Sandbox configurations and environment variables in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import Keyset, fetch_page
from letta_tools.domain.executions.sandbox_configs import EnvironmentVariable, KeyTaken, SandboxConfig

_metadata = sa.MetaData(schema="tools")
_configs = sa.Table(
    "sandbox_configs",
    _metadata,
    sa.Column("id", sa.Text),
    sa.Column("type", sa.Text),
    sa.Column("config", sa.Text),
    sa.Column("created_by_id", sa.Text),
    sa.Column("last_updated_by_id", sa.Text),
    sa.Column("version", sa.BigInteger),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
    sa.Column("organization_id", sa.Text),
)
_variables = sa.Table(
    "environment_variables",
    _metadata,
    sa.Column("id", sa.Text),
    sa.Column("sandbox_config_id", sa.Text),
    sa.Column("key", sa.Text),
    sa.Column("value", sa.LargeBinary),
    sa.Column("description", sa.Text),
    sa.Column("created_by_id", sa.Text),
    sa.Column("last_updated_by_id", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
    sa.Column("organization_id", sa.Text),
)
_CONFIG = list(_configs.c)[:-1]
_VARIABLE = list(_variables.c)[:-1]
_VARIABLES_OF = (
    "select v.sandbox_config_id, v.key, v.value from tools.environment_variables v join tools.sandbox_configs c "
    "on c.organization_id = v.organization_id and c.id = v.sandbox_config_id "
    "where v.organization_id = %s and c.type = %s"
)


class SqlSandboxConfigStore:
    """Configurations and variables of an organization."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, actor: Actor, config: SandboxConfig) -> SandboxConfig:
        """Add a configuration, or replace the settings of the one of its type; return it as it stands."""
        added = pg.insert(_configs).values(**asdict(config), organization_id=actor.organization_id)
        upsert = added.on_conflict_do_update(
            index_elements=[_configs.c.organization_id, _configs.c.type],
            set_={
                "config": added.excluded.config,
                "last_updated_by_id": added.excluded.last_updated_by_id,
                "updated_at": added.excluded.updated_at,
                "version": _configs.c.version + 1,
            },
        )
        async with self._db.connect() as conn:
            return _config((await conn.execute(upsert.returning(*_CONFIG))).one())

    async def find(self, actor: Actor, config_id: str) -> SandboxConfig | None:
        """Return one configuration."""
        query = sa.select(*_CONFIG).where(_mine(_configs, actor), _configs.c.id == config_id)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return _config(row) if row else None

    async def list_configs(self, actor: Actor, kind: str, page: Page) -> list[SandboxConfig]:
        """Return a page of configurations, of one type if `kind` is not empty."""
        query = sa.select(*_CONFIG).where(_mine(_configs, actor))
        if kind:
            query = query.where(_configs.c.type == kind)
        keyset = Keyset(at=_configs.c.created_at, id=_configs.c.id, scope=_mine(_configs, actor))
        async with self._db.connect() as conn:
            return [_config(row) for row in await fetch_page(conn, query, page, keyset)]

    async def delete(self, actor: Actor, config_id: str) -> bool:
        """Remove a configuration with its variables; say whether there was one."""
        return await self._delete(_configs, actor, config_id)

    async def put_variable(self, actor: Actor, variable: EnvironmentVariable) -> EnvironmentVariable:
        """Add a variable, or replace the one of its name; return it as it stands."""
        added = pg.insert(_variables).values(**asdict(variable), organization_id=actor.organization_id)
        kept = ("value", "description", "last_updated_by_id", "updated_at")
        upsert = added.on_conflict_do_update(
            index_elements=[_variables.c.organization_id, _variables.c.sandbox_config_id, _variables.c.key],
            set_={name: added.excluded[name] for name in kept},
        )
        async with self._db.connect() as conn:
            return _variable((await conn.execute(upsert.returning(*_VARIABLE))).one())

    async def find_variable(self, actor: Actor, variable_id: str) -> EnvironmentVariable | None:
        """Return one variable."""
        query = sa.select(*_VARIABLE).where(_mine(_variables, actor), _variables.c.id == variable_id)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return _variable(row) if row else None

    async def update_variable(self, actor: Actor, variable: EnvironmentVariable) -> bool:
        """Write a variable; say whether there was one. Raises KeyTaken."""
        statement = sa.update(_variables).where(_mine(_variables, actor), _variables.c.id == variable.id)
        try:
            async with self._db.connect() as conn:
                return (await conn.execute(statement.values(**asdict(variable)))).rowcount == 1
        except UniqueViolation as error:
            raise KeyTaken from error

    async def list_variables(self, actor: Actor, config_id: str, page: Page) -> list[EnvironmentVariable]:
        """Return a page of variables."""
        scope = sa.and_(_mine(_variables, actor), _variables.c.sandbox_config_id == config_id)
        keyset = Keyset(at=_variables.c.created_at, id=_variables.c.id, scope=scope)
        async with self._db.connect() as conn:
            rows = await fetch_page(conn, sa.select(*_VARIABLE).where(scope), page, keyset)
            return [_variable(row) for row in rows]

    async def delete_variable(self, actor: Actor, variable_id: str) -> bool:
        """Remove a variable; say whether there was one."""
        return await self._delete(_variables, actor, variable_id)

    async def list_values(self, actor: Actor, kind: str) -> list[tuple[str, str, bytes]]:
        """Return configuration, name and value of the variables of the configuration of a type, in one statement."""
        rows = await self._db.hot(_VARIABLES_OF, (actor.organization_id, kind))
        return [(config_id, key, value) for config_id, key, value in rows]

    async def _delete(self, table: sa.Table, actor: Actor, id: str) -> bool:
        async with self._db.connect() as conn:
            return (await conn.execute(sa.delete(table).where(_mine(table, actor), table.c.id == id))).rowcount == 1


def _mine(table: sa.Table, actor: Actor) -> sa.ColumnElement[bool]:
    return table.c.organization_id == actor.organization_id


def _config(row: Sequence[Any]) -> SandboxConfig:
    return SandboxConfig(*row)


def _variable(row: Sequence[Any]) -> EnvironmentVariable:
    return EnvironmentVariable(*row)
