"""What the model could not be asked in a step, such as tools that its vendor refuses."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.get_bind().exec_driver_sql("alter table agent.run_steps add column warnings text[] not null default '{}'")
