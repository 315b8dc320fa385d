"""Providers, usage and traces."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        create table llm.providers (
            organization_id text not null,
            id text not null,
            name text not null,
            provider_type text not null,
            base_url text,
            region text,
            api_version text,
            api_key bytea,
            access_key bytea,
            created_at timestamptz not null,
            updated_at timestamptz not null,
            last_synced timestamptz,
            primary key (organization_id, id),
            constraint providers_name unique (organization_id, name)
        )
    """)
    op.execute("create index providers_created on llm.providers (organization_id, created_at, id)")
    op.execute("""
        create table llm.usage (
            organization_id text not null,
            id text not null,
            user_id text not null,
            created_at timestamptz not null,
            agent_id text not null,
            run_id text not null,
            step_id text not null,
            purpose text not null,
            model text not null,
            provider_type text not null,
            prompt_tokens int not null,
            completion_tokens int not null,
            cached_input_tokens int not null,
            cache_write_tokens int not null,
            reasoning_tokens int not null,
            source smallint not null,
            cost_microdollars bigint not null,
            duration_ms bigint not null,
            outcome text not null,
            primary key (organization_id, id)
        )
    """)
    op.execute("create index usage_created on llm.usage (organization_id, created_at)")
    op.execute("""
        create table llm.provider_traces (
            organization_id text not null,
            id text not null,
            user_id text not null,
            created_at timestamptz not null,
            agent_id text not null,
            run_id text not null,
            step_id text not null,
            purpose text not null,
            model text not null,
            provider_type text not null,
            request_json text not null,
            response_json text not null,
            primary key (organization_id, id)
        )
    """)
    op.execute("create index provider_traces_step on llm.provider_traces (organization_id, step_id, created_at)")
