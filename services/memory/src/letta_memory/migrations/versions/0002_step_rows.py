"""What the hot statements of the agent loop answer."""

from alembic import op

revision = "0002"
down_revision = "0001"

STEP_ROW = """
-- What the hot functions answer: first a row without block, then a row for each block.
create type memory.step_row as (
  status smallint,
  fence bigint,
  repeated boolean,
  message_count bigint,
  passage_count bigint,
  last_step integer,
  last_stop smallint,
  notes text[],
  messages bytea[],
  block memory.blocks
);
"""


def upgrade() -> None:
    """Make the type."""
    op.execute(STEP_ROW)
