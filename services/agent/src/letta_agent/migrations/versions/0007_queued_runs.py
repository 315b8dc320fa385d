"""A run that waits is found by a column that no other run changes, so that closing one touches no index."""

from alembic import op

revision = "0007"
down_revision = "0006"

TABLES = r"""
alter table agent.runs add column queued boolean not null default false;
alter table agent.runs alter column queued set default true;
comment on column agent.runs.queued is 'it waits for its conversation; those that never waited never change it';
update agent.runs set queued = true where status = 1;
drop index agent.runs_waiting;
create index runs_queued on agent.runs (organization_id, conversation_id, created_at, id) where queued;
"""


def upgrade() -> None:
    """Add the column. Its default is for an admission of the release before that is under way meanwhile."""
    op.get_bind().exec_driver_sql(TABLES)
