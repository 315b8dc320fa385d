"""Builds the auth service from its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from letta.auth.v1 import (
    api_key_service_pb2_grpc,
    credential_service_pb2_grpc,
    organization_service_pb2_grpc,
    user_service_pb2_grpc,
)
from letta_auth.domain.api_keys import APIKeys, Pepper
from letta_auth.domain.bootstrap import Bootstrap
from letta_auth.domain.credentials import Credentials
from letta_auth.domain.organizations import Organizations
from letta_auth.domain.signing_keys import PRIVATE_KEYS, SigningKeys
from letta_auth.domain.users import Users
from letta_auth.servicers.api_keys import APIKeyServicer
from letta_auth.servicers.credentials import CredentialServicer
from letta_auth.servicers.organizations import OrganizationServicer
from letta_auth.servicers.users import UserServicer
from letta_auth.settings import AuthSettings
from letta_auth.store.database import SqlAuthDatabase
from letta_common.clock import SystemClock
from letta_common.process.periodic import Periodic
from letta_common.sealing import Sealer
from letta_postgres.db import Database, DatabaseOptions
from letta_postgres.migrations import upgrade
from letta_postgres.resealing import Resealer, SealedColumn
from letta_rpc.service import Deps, Service

SCHEMA = "auth"
# Signing keys are the deployment's, of no organization.
SEALED = (SealedColumn(PRIVATE_KEYS, organization=""),)
_HOUR = 3600.0


async def build(settings: AuthSettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    db = await _open(settings)
    stored, clock = SqlAuthDatabase(db), deps.clock
    pepper = Pepper(settings.secret())
    sealer, max_age = Sealer(settings.sealing_secrets()), timedelta(days=settings.signing_key_days)
    keys = SigningKeys(stored, sealer, clock, audience=settings.audience, max_age=max_age)
    resealer = Resealer(db, sealer, SEALED)
    background = Periodic("seal anew", resealer.reseal, _HOUR, at_once=True)
    credentials = Credentials(stored, keys, pepper, clock, dev_mode=settings.dev_mode)

    async def start() -> None:
        if settings.dev_mode:
            await Bootstrap(stored, pepper, clock).ensure_defaults()
        # Before anybody calls, so that a verifier which starts now finds a key.
        await keys.signer()
        background.start()

    async def close() -> None:
        await background.stop()
        await db.close()

    return Service(
        name="auth",
        servicers=(
            (
                credential_service_pb2_grpc.add_CredentialServiceServicer_to_server,
                CredentialServicer(credentials, keys),
            ),
            (
                organization_service_pb2_grpc.add_OrganizationServiceServicer_to_server,
                OrganizationServicer(Organizations(stored, clock)),
            ),
            (user_service_pb2_grpc.add_UserServiceServicer_to_server, UserServicer(Users(stored, clock))),
            (
                api_key_service_pb2_grpc.add_APIKeyServiceServicer_to_server,
                APIKeyServicer(APIKeys(stored, pepper, clock, dev_mode=settings.dev_mode)),
            ),
        ),
        start=start,
        close=close,
        alive=db.alive,
    )


async def bootstrap_admin_key(settings: AuthSettings) -> str | None:
    """Make the first administrator's key and return its secret; None when there is one already."""
    async with _database(settings) as stored:
        return await Bootstrap(stored, Pepper(settings.secret()), SystemClock()).admin_key()


@asynccontextmanager
async def _database(settings: AuthSettings) -> AsyncIterator[SqlAuthDatabase]:
    db = await _open(settings)
    try:
        yield SqlAuthDatabase(db)
    finally:
        await db.close()


async def _open(settings: AuthSettings) -> Database:
    dsn = settings.database_url.get_secret_value()
    await upgrade(dsn, package="letta_auth", schema=SCHEMA, extensions=())
    options = DatabaseOptions(pool_size=settings.pool_size, application_name="letta-auth")
    return await Database.open(dsn, schema=SCHEMA, options=options)
