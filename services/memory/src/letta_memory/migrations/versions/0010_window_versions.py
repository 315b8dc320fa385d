"""A context has a version, so that who holds it need be told only what is newer."""

from alembic import op

revision = "0010"
down_revision = "0009"

COLUMN = """
alter table memory.conversations add column window_version bigint not null default 0;
alter table memory.conversations
  alter column window_version set default (extract(epoch from clock_timestamp()) * 1000000)::bigint;
comment on column memory.conversations.window_version is 'raised by any change of the context but messages at its end';
"""


def upgrade() -> None:
    """Add the column. It begins with the time, so that a conversation made again under its id has another version."""
    op.execute(COLUMN)
