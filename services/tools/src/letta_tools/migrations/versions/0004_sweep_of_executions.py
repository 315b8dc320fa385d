"""Old executions of all organizations are found by their time alone."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute(
        """
        drop index tools.executions_started;
        create index executions_started on tools.executions (started_at);
        """
    )
