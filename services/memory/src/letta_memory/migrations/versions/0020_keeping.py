"""What archives keep: for how long, how many, texts once; and former embedders, which serve until new vectors stand."""

from alembic import op

revision = "0020"
down_revision = "0019"

ARCHIVES = """
drop function if exists memory.write_passages, memory.search_passages;
alter table memory.archives
  add column max_age interval,
  add column max_passages bigint,
  add column deduplication smallint,
  add column pruned_at timestamptz,
  add column former_embedders text[] not null default '{}';
comment on column memory.archives.deduplication is 'a Deduplication';
comment on column memory.archives.pruned_at is 'up to when what is not kept was removed';
comment on column memory.archives.former_embedders is 'those whose vectors serve until there are new ones';
create index archives_system_keeping on memory.archives (pruned_at nulls first)
  where max_age is not null or max_passages is not null;
"""

PASSAGES = """
alter table memory.passages add column text_hash bytea, add column copy integer not null default 0;
comment on column memory.passages.text_hash is 'of passages that are no chunks of files';
comment on column memory.passages.copy is '0: written where the archive skips texts that it has, else its place';
update memory.passages set text_hash = sha256(convert_to(text, 'UTF8')), copy = place where file_id is null;
create unique index passages_by_text on memory.passages (organization_id, archive_id, text_hash, copy)
  where text_hash is not null;
create index passages_by_place on memory.passages (organization_id, archive_id, place);
alter type memory.passage_row add attribute existing boolean;
alter type memory.text_filter add attribute kept timestamptz[], add attribute places integer[];
"""


def upgrade() -> None:
    """Make the columns; archives of before keep everything."""
    for statements in (ARCHIVES, PASSAGES):
        op.execute(statements)
