"""Costs that nobody knows, budgets, spending by day, defaults of organizations."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("alter table llm.usage alter column cost_microdollars drop not null")
    op.execute(
        "update llm.usage set cost_microdollars = null where cost_microdollars = 0 and provider_type <> 'builtin'"
    )
    op.execute("create index usage_agent on llm.usage (organization_id, agent_id, created_at)")
    op.execute("create index usage_run on llm.usage (organization_id, run_id)")
    op.execute("create index provider_traces_system_age on llm.provider_traces (created_at)")
    op.execute("""
        create table llm.budgets (
            organization_id text not null,
            id text not null,
            scope smallint not null,
            subject_id text not null,
            period smallint not null,
            limit_microdollars bigint not null,
            action smallint not null,
            created_at timestamptz not null,
            updated_at timestamptz not null,
            primary key (organization_id, id),
            constraint budgets_subject unique (organization_id, scope, subject_id, period)
        )
    """)
    op.execute("create index budgets_created on llm.budgets (organization_id, created_at, id)")
    op.execute("""
        create table llm.spending (
            organization_id text not null,
            day date not null,
            user_id text not null,
            agent_id text not null,
            cost_microdollars bigint not null,
            primary key (organization_id, day, user_id, agent_id)
        )
    """)
    op.execute("""
        insert into llm.spending
        select organization_id, (created_at at time zone 'UTC')::date, user_id, agent_id, sum(cost_microdollars)
        from llm.usage where cost_microdollars > 0 group by 1, 2, 3, 4
    """)
    op.execute("""
        create table llm.defaults (
            organization_id text not null,
            handle text not null,
            embedding_handle text not null,
            updated_at timestamptz not null,
            primary key (organization_id)
        )
    """)
