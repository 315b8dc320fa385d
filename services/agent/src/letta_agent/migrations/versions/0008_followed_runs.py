"""A run says until when listeners of other replicas wait for its events."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.get_bind().exec_driver_sql("alter table agent.runs add column followed_until timestamptz")
