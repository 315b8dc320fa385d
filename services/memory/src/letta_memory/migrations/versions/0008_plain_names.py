"""Functions that changed their parameters under their own names."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("drop function if exists memory.commit_step, memory.search_passages, memory.write_passages")
