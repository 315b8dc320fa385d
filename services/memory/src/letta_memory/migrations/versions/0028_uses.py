"""Which passages are used, in archives that keep no others for long."""

from alembic import op

revision = "0028"
down_revision = "0027"

ARCHIVES = """
alter table memory.archives add column unused_after interval, add column uses_since timestamptz;
comment on column memory.archives.uses_since is 'what was used before that is not known';
drop index memory.archives_system_keeping;
create index archives_system_keeping on memory.archives (pruned_at nulls first)
  where max_age is not null or max_passages is not null or unused_after is not null;
"""

TABLE = """
-- When passages were used last, in archives that remove those that nobody uses.
create table memory.passage_uses (
  organization_id text not null,
  archive_id text not null,
  passage_id text not null,
  used_at timestamptz not null,
  primary key (organization_id, archive_id, passage_id),
  foreign key (organization_id, archive_id, passage_id)
    references memory.passages (organization_id, archive_id, id) on delete cascade
);
"""


def upgrade() -> None:
    """Make the columns and the table; archives of before keep what nobody uses."""
    for statements in (ARCHIVES, TABLE):
        op.execute(statements)
