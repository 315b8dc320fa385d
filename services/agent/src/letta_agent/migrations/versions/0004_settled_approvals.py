"""Requests for approval stay with their conversation until they are settled; a run says what its input answered."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = r"""
alter table agent.conversation_queue add column approval_since timestamptz, add column failed_hash bytea;
comment on column agent.conversation_queue.failed_hash is 'request of a run that failed last and whose input stayed';
alter table agent.runs add column answers text[];
comment on column agent.runs.answers is 'calls that its input answered, each with the answer';
update agent.conversation_queue set approval_since = coalesce(last_run_completion, clock_timestamp())
where approval_message_id is not null;
create index conversation_queue_system_approvals on agent.conversation_queue (approval_since)
  where approval_since is not null;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)
