"""The messages of an agent over all of its conversations, by time."""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Make the index."""
    op.execute("create index messages_by_agent on memory.messages (organization_id, agent_id, created_at, id)")
