"""A conversation knows its last run, so that a message writes one row less for each step."""

from alembic import op

revision = "0009"
down_revision = "0008"

COLUMNS = """
alter table memory.conversations add column last_run text, add column last_input boolean not null default false,
  add column last_step integer, add column last_stop smallint;
comment on column memory.conversations.last_run is 'the run that began or committed last';
comment on column memory.conversations.last_input is 'the input of that run was appended';
comment on column memory.conversations.last_step is 'the last step that it committed, if any';
comment on column memory.conversations.last_stop is 'why it stopped after that step';
comment on table memory.committed_steps is 'last steps, or -1, of runs before the last one of a conversation';
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(COLUMNS)
