"""What searches and writes of passages answer, and the index of messages by step."""

from alembic import op

revision = "0004"
down_revision = "0002"

STEP_INDEX = """
create index messages_by_step on memory.messages (organization_id, step_id, seq) where step_id is not null;
"""

TYPES = """
create type memory.passage_hit as (score float8, word_place integer, meaning_place integer, passage memory.passages);

create type memory.message_hit as (
  score float8, word_place integer, meaning_place integer, id text, agent_id text, conversation_id text,
  created_at timestamptz, body bytea);

create type memory.passage_row as (status smallint, archive_embedder text, passage memory.passages);
"""


def upgrade() -> None:
    """Make the types."""
    for statements in (STEP_INDEX, TYPES):
        op.execute(statements)
