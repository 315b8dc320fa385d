"""The tables, for statements that are put together."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

_metadata = sa.MetaData(schema="agent")
_TEXTS = pg.ARRAY(sa.Text)
_TIME = sa.DateTime(timezone=True)


def _table(table: str, /, **columns: Any) -> sa.Table:
    return sa.Table(table, _metadata, *(sa.Column(column, kind) for column, kind in columns.items()))


agents = _table(
    "agents",
    organization_id=sa.Text,
    id=sa.Text,
    name=sa.Text,
    agent_type=sa.SmallInteger,
    tags=_TEXTS,
    project_id=sa.Text,
    template_id=sa.Text,
    base_template_id=sa.Text,
    created_by_id=sa.Text,
    hidden=sa.Boolean,
    state=sa.SmallInteger,
    version=sa.BigInteger,
    request_id=sa.Text,
    request_hash=sa.LargeBinary,
    definition=sa.LargeBinary,
    creation=sa.LargeBinary,
    secrets=sa.LargeBinary,
    created_at=_TIME,
    updated_at=_TIME,
)
agent_tools = _table(
    "agent_tools",
    organization_id=sa.Text,
    agent_id=sa.Text,
    tool_id=sa.Text,
    attached_at=_TIME,
    position=sa.Integer,
)
conversations = _table(
    "conversations",
    organization_id=sa.Text,
    id=sa.Text,
    agent_id=sa.Text,
    summary=sa.Text,
    definition=sa.LargeBinary,
    isolated_block_ids=_TEXTS,
    isolated_labels=_TEXTS,
    request_id=sa.Text,
    request_hash=sa.LargeBinary,
    state=sa.SmallInteger,
    created_by_id=sa.Text,
    last_updated_by_id=sa.Text,
    created_at=_TIME,
    updated_at=_TIME,
)
queue = _table(
    "conversation_queue",
    organization_id=sa.Text,
    conversation_id=sa.Text,
    agent_id=sa.Text,
    run_id=sa.Text,
    fence=sa.BigInteger,
    pending=sa.Integer,
    context_tokens=sa.Integer,
    approval_message_id=sa.Text,
    approval_call_ids=_TEXTS,
    approval_message=sa.LargeBinary,
    approval_since=_TIME,
    failed_hash=sa.LargeBinary,
    last_run_completion=_TIME,
    last_run_duration_ms=sa.Integer,
    last_stop_reason=sa.SmallInteger,
    last_message_at=_TIME,
)
runs = _table(
    "runs",
    organization_id=sa.Text,
    id=sa.Text,
    agent_id=sa.Text,
    conversation_id=sa.Text,
    idempotency_key=sa.Text,
    status=sa.SmallInteger,
    stop_reason=sa.SmallInteger,
    background=sa.Boolean,
    run_type=sa.Text,
    request=sa.LargeBinary,
    answers=_TEXTS,
    error=sa.Text,
    created_at=_TIME,
    started_at=_TIME,
    completed_at=_TIME,
    ttft_ns=sa.BigInteger,
    step_count=sa.Integer,
    prompt_tokens=sa.Integer,
    completion_tokens=sa.Integer,
    cached_input_tokens=sa.Integer,
    cache_write_tokens=sa.Integer,
    reasoning_tokens=sa.Integer,
    context_tokens=sa.Integer,
    cancel_requested=sa.Boolean,
    followed_until=_TIME,
    claims=sa.Integer,
)
run_steps = _table(
    "run_steps",
    organization_id=sa.Text,
    run_id=sa.Text,
    step_index=sa.Integer,
    id=sa.Text,
    agent_id=sa.Text,
    model=sa.Text,
    provider_type=sa.Text,
    context_window=sa.Integer,
    prompt_tokens=sa.Integer,
    completion_tokens=sa.Integer,
    cached_input_tokens=sa.Integer,
    cache_write_tokens=sa.Integer,
    reasoning_tokens=sa.Integer,
    stop_reason=sa.SmallInteger,
    status=sa.SmallInteger,
    started_ns=sa.BigInteger,
    step_ns=sa.BigInteger,
    llm_started_ns=sa.BigInteger,
    llm_ns=sa.BigInteger,
    tool_ns=sa.BigInteger,
    tools_used=_TEXTS,
    error_type=sa.Text,
    error_message=sa.Text,
    warnings=_TEXTS,
    created_at=_TIME,
    feedback=sa.SmallInteger,
    tags=_TEXTS,
)
run_events = _table(
    "run_events",
    organization_id=sa.Text,
    run_id=sa.Text,
    seq_id=sa.BigInteger,
    event=sa.LargeBinary,
    created_at=_TIME,
)
