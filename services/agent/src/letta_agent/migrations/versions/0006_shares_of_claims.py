"""What is due is found by organization, the oldest first; a lease that ended says since when."""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = r"""
drop function if exists agent.admit_run, agent.claim_due_runs, agent.close_run;
update agent.conversation_queue set lease_until = clock_timestamp()
where lease_until is null and (run_id is not null or pending > 0);
drop index agent.conversation_queue_system_due;
create index conversation_queue_work on agent.conversation_queue (organization_id, lease_until)
  where run_id is not null or pending > 0;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)
