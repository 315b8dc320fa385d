"""Old rows are found by their age."""

from alembic import op

revision = "0005"
down_revision = "0004"

AGES = """
create index committed_steps_system_age on memory.committed_steps using brin (created_at);
create index tombstones_system_age on memory.tombstones using brin (deleted_at);
"""


def upgrade() -> None:
    """Make the indexes."""
    op.execute(AGES)
