"""The tables of schema `auth`, as the migrations make them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

metadata = sa.MetaData(schema="auth")
_at = sa.DateTime(timezone=True)

organizations = sa.Table(
    "organizations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("privileged_tools", sa.Boolean),
    sa.Column("created_at", _at),
    sa.Column("updated_at", _at),
    sa.Column("is_deleted", sa.Boolean),
    sa.Column("audit_seq", sa.BigInteger),
    sa.Column("audit_hash", sa.LargeBinary),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organization_id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("created_at", _at),
    sa.Column("updated_at", _at),
    sa.Column("is_deleted", sa.Boolean),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organization_id", sa.Text),
    sa.Column("user_id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("secret_hash", sa.LargeBinary),
    sa.Column("scopes", ARRAY(sa.Text)),
    sa.Column("created_at", _at),
    sa.Column("created_by_id", sa.Text),
    sa.Column("expires_at", _at),
    sa.Column("last_used_at", _at),
    sa.Column("revoked_at", _at),
    sa.Column("development", sa.Boolean),
)

signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("public_key", sa.LargeBinary),
    sa.Column("sealed_private_key", sa.LargeBinary),
    sa.Column("created_at", _at),
    sa.Column("retired_at", _at),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("organization_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("at", _at),
    sa.Column("actor_user_id", sa.Text),
    sa.Column("action", sa.Text),
    sa.Column("target_id", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("hash", sa.LargeBinary),
)
