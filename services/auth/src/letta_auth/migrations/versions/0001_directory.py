"""The directory: organizations, users, API keys, signing keys and the audit log.

The directory says to which organization a credential belongs, so its own keys cannot lead with one.
"""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
    create table auth.organizations (
        id text primary key,
        name text not null,
        privileged_tools boolean not null default false,
        created_at timestamptz not null,
        updated_at timestamptz not null,
        is_deleted boolean not null default false,
        audit_seq bigint not null default 0,
        audit_hash bytea not null default ''
    );
    create index organizations_created on auth.organizations (created_at, id);

    create table auth.users (
        id text primary key,
        organization_id text not null references auth.organizations (id),
        name text not null,
        created_at timestamptz not null,
        updated_at timestamptz not null,
        is_deleted boolean not null default false
    );
    create index users_created on auth.users (created_at, id);
    create index users_of_organization on auth.users (organization_id, created_at, id);

    create table auth.api_keys (
        id text primary key,
        organization_id text not null references auth.organizations (id),
        user_id text not null references auth.users (id),
        name text not null,
        secret_hash bytea not null,
        scopes text[] not null,
        created_at timestamptz not null,
        created_by_id text not null,
        expires_at timestamptz,
        last_used_at timestamptz,
        revoked_at timestamptz
    );
    create index api_keys_of_organization on auth.api_keys (organization_id, created_at, id);
    create index api_keys_of_user on auth.api_keys (user_id);

    create table auth.signing_keys (
        id text primary key,
        public_key bytea not null,
        sealed_private_key bytea not null,
        created_at timestamptz not null,
        retired_at timestamptz
    );

    create table auth.audit_log (
        organization_id text not null references auth.organizations (id),
        seq bigint not null,
        at timestamptz not null,
        actor_user_id text not null,
        action text not null,
        target_id text not null,
        request_id text not null,
        hash bytea not null,
        primary key (organization_id, seq)
    );
    """)
