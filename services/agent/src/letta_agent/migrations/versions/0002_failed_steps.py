"""Why steps failed."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("alter table agent.run_steps add column error_message text not null default ''")
