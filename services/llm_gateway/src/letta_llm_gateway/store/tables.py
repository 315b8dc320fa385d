"""The tables of schema `llm`."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(schema="llm")
_time = sa.DateTime(timezone=True)

providers = sa.Table(
    "providers",
    metadata,
    sa.Column("id", sa.Text),
    sa.Column("organization_id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("provider_type", sa.Text),
    sa.Column("base_url", sa.Text),
    sa.Column("region", sa.Text),
    sa.Column("api_version", sa.Text),
    sa.Column("api_key", sa.LargeBinary),
    sa.Column("access_key", sa.LargeBinary),
    sa.Column("created_at", _time),
    sa.Column("updated_at", _time),
    sa.Column("last_synced", _time),
)

_BOOKED = ("agent_id", "run_id", "step_id", "purpose", "model", "provider_type")
usage = sa.Table(
    "usage",
    metadata,
    sa.Column("id", sa.Text),
    sa.Column("organization_id", sa.Text),
    sa.Column("user_id", sa.Text),
    sa.Column("created_at", _time),
    *(sa.Column(name, sa.Text) for name in _BOOKED),
    *(
        sa.Column(name, sa.Integer)
        for name in (
            "prompt_tokens",
            "completion_tokens",
            "cached_input_tokens",
            "cache_write_tokens",
            "reasoning_tokens",
        )
    ),
    sa.Column("source", sa.SmallInteger),
    sa.Column("cost_microdollars", sa.BigInteger),
    sa.Column("duration_ms", sa.BigInteger),
    sa.Column("outcome", sa.Text),
)
traces = sa.Table(
    "provider_traces",
    metadata,
    sa.Column("id", sa.Text),
    sa.Column("organization_id", sa.Text),
    sa.Column("user_id", sa.Text),
    sa.Column("created_at", _time),
    *(sa.Column(name, sa.Text) for name in _BOOKED),
    sa.Column("request_json", sa.Text),
    sa.Column("response_json", sa.Text),
)
budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("id", sa.Text),
    sa.Column("organization_id", sa.Text),
    sa.Column("scope", sa.SmallInteger),
    sa.Column("subject_id", sa.Text),
    sa.Column("period", sa.SmallInteger),
    sa.Column("limit_microdollars", sa.BigInteger),
    sa.Column("action", sa.SmallInteger),
    sa.Column("created_at", _time),
    sa.Column("updated_at", _time),
)
spending = sa.Table(
    "spending",
    metadata,
    sa.Column("organization_id", sa.Text),
    sa.Column("day", sa.Date),
    sa.Column("user_id", sa.Text),
    sa.Column("agent_id", sa.Text),
    sa.Column("cost_microdollars", sa.BigInteger),
)
defaults = sa.Table(
    "defaults",
    metadata,
    sa.Column("organization_id", sa.Text),
    sa.Column("handle", sa.Text),
    sa.Column("embedding_handle", sa.Text),
    sa.Column("updated_at", _time),
)
