"""Who an agent belongs to is kept by memory, with the identities."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Drop the column. No identity could be made yet, so what it holds names none."""
    op.execute("alter table agent.agents drop column identity_ids")
