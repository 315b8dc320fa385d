"""Sandbox configurations and environment variables in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from letta.tools.v1.sandbox_config_pb2 import SandboxConfig, SandboxEnvironmentVariable, SandboxSettings, SandboxType
from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_common.values.times import time_of
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import Keyset, fetch_page
from letta_tools.domain.executions.sandbox_configs import MASK, KeyTaken
from letta_tools.store.sandbox_settings import read_settings, write_settings

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
_CONFIG = list(_configs.c)
_CHANGED = ("config", "last_updated_by_id", "updated_at")
_VARIABLE = [column for column in _variables.c if column.name != "value"]
_KEPT = (
    "select c.id, c.config, v.key, v.value from tools.sandbox_configs c left join tools.environment_variables v "
    "on v.organization_id = c.organization_id and v.sandbox_config_id = c.id "
    "where c.organization_id = %s and c.type = %s"
)


class SqlSandboxConfigStore:
    """Configurations and variables of an organization."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, actor: Actor, config: SandboxConfig) -> SandboxConfig:
        """Add a configuration, or replace the settings of the one of its type; return it as it stands."""
        added = pg.insert(_configs).values(**_config_values(actor, config))
        changed = {name: added.excluded[name] for name in _CHANGED}
        return await self._upsert(added, {**changed, "version": _configs.c.version + 1})

    async def create(self, actor: Actor, config: SandboxConfig) -> SandboxConfig:
        """Add a configuration unless there is one of its type, which stays; return the one that is there."""
        added = pg.insert(_configs).values(**_config_values(actor, config))
        # Writing its own type to a row changes nothing and has Postgres return the row; `do nothing` returns none.
        return await self._upsert(added, {"type": _configs.c.type})

    async def update(self, actor: Actor, config: SandboxConfig, *, expected: int) -> SandboxConfig | None:
        """Replace the settings of the one of a type if its version is still `expected`; return it as it stands then."""
        same = sa.and_(_configs.c.type == _text(config.type), _configs.c.version == expected)
        statement = sa.update(_configs).where(_mine(_configs, actor), same)
        values = {name: value for name, value in _config_values(actor, config).items() if name in _CHANGED}
        written = statement.values(**values, version=_configs.c.version + 1).returning(*_CONFIG)
        async with self._db.connect() as conn:
            row = (await conn.execute(written)).first()
        return _config(row) if row else None

    async def find(self, actor: Actor, config_id: str) -> SandboxConfig | None:
        """Return one configuration."""
        query = sa.select(*_CONFIG).where(_mine(_configs, actor), _configs.c.id == config_id)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return _config(row) if row else None

    async def list_configs(self, actor: Actor, kind: SandboxType.ValueType, page: Page) -> list[SandboxConfig]:
        """Return a page of configurations, of one type unless it is unspecified."""
        query = sa.select(*_CONFIG).where(_mine(_configs, actor))
        if kind:
            query = query.where(_configs.c.type == _text(kind))
        keyset = Keyset(at=_configs.c.created_at, id=_configs.c.id, scope=_mine(_configs, actor))
        async with self._db.connect() as conn:
            return [_config(row) for row in await fetch_page(conn, query, page, keyset)]

    async def delete(self, actor: Actor, config_id: str) -> bool:
        """Remove a configuration with its variables; say whether there was one."""
        return await self._delete(_configs, actor, config_id)

    async def put_variable(
        self, actor: Actor, variable: SandboxEnvironmentVariable, sealed: bytes
    ) -> SandboxEnvironmentVariable:
        """Add a variable, or replace the one of its name; return it as it stands."""
        added = pg.insert(_variables).values(**_variable_values(actor, variable), value=sealed)
        # Id and maker stay those of the variable that was there.
        kept = ("value", "description", "last_updated_by_id", "updated_at")
        upsert = added.on_conflict_do_update(
            index_elements=[_variables.c.organization_id, _variables.c.sandbox_config_id, _variables.c.key],
            set_={name: added.excluded[name] for name in kept},
        )
        async with self._db.connect() as conn:
            return _variable((await conn.execute(upsert.returning(*_VARIABLE))).one())

    async def find_variable(self, actor: Actor, variable_id: str) -> tuple[SandboxEnvironmentVariable, bytes] | None:
        """Return one variable and its sealed value."""
        query = sa.select(*_VARIABLE, _variables.c.value).where(
            _mine(_variables, actor), _variables.c.id == variable_id
        )
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return (_variable(row), row.value) if row else None

    async def update_variable(self, actor: Actor, variable: SandboxEnvironmentVariable, sealed: bytes) -> bool:
        """Write a variable; say whether there was one. Raises KeyTaken."""
        statement = sa.update(_variables).where(_mine(_variables, actor), _variables.c.id == variable.id)
        values = {**_variable_values(actor, variable), "value": sealed}
        try:
            async with self._db.connect() as conn:
                return (await conn.execute(statement.values(**values))).rowcount == 1
        except UniqueViolation as error:
            raise KeyTaken from error

    async def list_variables(self, actor: Actor, config_id: str, page: Page) -> list[SandboxEnvironmentVariable]:
        """Return a page of variables."""
        scope = sa.and_(_mine(_variables, actor), _variables.c.sandbox_config_id == config_id)
        keyset = Keyset(at=_variables.c.created_at, id=_variables.c.id, scope=scope)
        async with self._db.connect() as conn:
            rows = await fetch_page(conn, sa.select(*_VARIABLE).where(scope), page, keyset)
            return [_variable(row) for row in rows]

    async def delete_variable(self, actor: Actor, variable_id: str) -> bool:
        """Remove a variable; say whether there was one."""
        return await self._delete(_variables, actor, variable_id)

    async def find_kept(
        self, actor: Actor, kind: SandboxType.ValueType
    ) -> tuple[str, SandboxSettings, Mapping[str, bytes]] | None:
        """Return the id, settings and sealed variables of the configuration of a type, in one statement."""
        rows = await self._db.hot(_KEPT, (actor.organization_id, _text(kind)))
        if not rows:
            return None
        config_id, settings = rows[0][:2]
        # One without variables is a row without a key.
        sealed = {key: value for _, _, key, value in rows if key is not None}
        return config_id, read_settings(_text(kind), settings), sealed

    async def _upsert(self, added: pg.Insert, changed: Mapping[str, sa.ColumnElement[Any]]) -> SandboxConfig:
        upsert = added.on_conflict_do_update(
            index_elements=[_configs.c.organization_id, _configs.c.type], set_=dict(changed)
        )
        async with self._db.connect() as conn:
            return _config((await conn.execute(upsert.returning(*_CONFIG))).one())

    async def _delete(self, table: sa.Table, actor: Actor, id: str) -> bool:
        async with self._db.connect() as conn:
            return (await conn.execute(sa.delete(table).where(_mine(table, actor), table.c.id == id))).rowcount == 1


def _mine(table: sa.Table, actor: Actor) -> sa.ColumnElement[bool]:
    return table.c.organization_id == actor.organization_id


def _text(kind: SandboxType.ValueType) -> str:
    """Return a type as the column has it."""
    return SandboxType.Name(kind).removeprefix("SANDBOX_TYPE_").lower()


def _config(row: sa.Row[Any]) -> SandboxConfig:
    values = dict(row._mapping)
    kind = values["type"]
    values["config"] = read_settings(kind, values["config"])
    return SandboxConfig(**_known(values), type=SandboxType.Value(f"SANDBOX_TYPE_{kind.upper()}"))


def _variable(row: Any) -> SandboxEnvironmentVariable:
    return SandboxEnvironmentVariable(**_known(dict(row._mapping)), value=MASK)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Return values without the names of nobody."""
    return {name: value for name, value in values.items() if name not in {"type", "value"} and value != ""}


def _config_values(actor: Actor, config: SandboxConfig) -> dict[str, Any]:
    return {
        **_shared_values(actor, config),
        "type": _text(config.type),
        "config": write_settings(config.config),
        "version": 1,
    }


def _variable_values(actor: Actor, variable: SandboxEnvironmentVariable) -> dict[str, Any]:
    return {
        **_shared_values(actor, variable),
        "sandbox_config_id": variable.sandbox_config_id,
        "key": variable.key,
        "description": variable.description if variable.HasField("description") else None,
    }


def _shared_values(actor: Actor, kept: SandboxConfig | SandboxEnvironmentVariable) -> dict[str, Any]:
    return {
        "organization_id": actor.organization_id,
        "id": kept.id,
        "created_by_id": kept.created_by_id,
        "last_updated_by_id": kept.last_updated_by_id,
        "created_at": time_of(kept.created_at),
        "updated_at": time_of(kept.updated_at),
    }
