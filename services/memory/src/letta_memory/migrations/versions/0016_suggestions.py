"""What the service proposes to change of memory, and how far it has looked for that."""

from alembic import op

revision = "0016"
down_revision = "0015"

POLICIES = """
alter table memory.archives
  add column suggest_duplicates boolean not null default true,
  add column most_open integer not null default 100,
  add column review_due boolean not null default false;
comment on column memory.archives.review_due is 'there may be passages that were not compared with the others';
create index archives_system_review on memory.archives (id) where review_due;

alter table memory.agents
  add column suggest_corrections boolean not null default true,
  add column most_open integer not null default 100;
"""

SUGGESTIONS = """
create table memory.suggestions (
  organization_id text not null,
  id text not null,
  kind smallint not null,
  state smallint not null default 1,
  archive_id text,
  agent_id text,
  block_id text,
  digest bytea not null,
  passage_ids text[] not null default '{}',
  passage_texts text[] not null default '{}',
  passage_hashes bytea[] not null default '{}',
  passage_times timestamptz[] not null default '{}',
  same_text boolean not null default false,
  word_overlap float8,
  similarity float8,
  block_version bigint,
  line_number integer,
  line text,
  replacement text,
  relation text,
  message_ids text[] not null default '{}',
  message_text text,
  created_at timestamptz not null,
  decided_at timestamptz,
  decided_by_id text,
  primary key (organization_id, id),
  foreign key (organization_id, archive_id) references memory.archives (organization_id, id) on delete cascade,
  foreign key (organization_id, agent_id) references memory.agents (organization_id, id) on delete cascade,
  foreign key (organization_id, block_id) references memory.blocks (organization_id, id) on delete cascade
);
comment on column memory.suggestions.kind is 'number of letta.memory.v1.MemorySuggestionKind';
comment on column memory.suggestions.state is 'number of letta.memory.v1.MemorySuggestionState';
comment on column memory.suggestions.digest is 'of the content: what was dismissed is known by it';
comment on column memory.suggestions.passage_hashes is 'SHA-256 of the texts: whether they are as they were';
create index suggestions_by_time on memory.suggestions (organization_id, created_at, id);
create index suggestions_by_archive on memory.suggestions (organization_id, archive_id, state)
  where archive_id is not null;
create index suggestions_by_agent on memory.suggestions (organization_id, agent_id, state) where agent_id is not null;
create index suggestions_by_block on memory.suggestions (organization_id, block_id, state) where block_id is not null;
create unique index suggestions_by_content on memory.suggestions (organization_id, digest) where state in (1, 3);
create index suggestions_system_age on memory.suggestions (decided_at) where state in (2, 4);

create table memory.archive_reviews (
  organization_id text not null,
  archive_id text not null,
  place integer not null default 0,
  claim bigint not null default 0,
  leased_until timestamptz not null default '-infinity',
  primary key (organization_id, archive_id),
  foreign key (organization_id, archive_id) references memory.archives (organization_id, id) on delete cascade
);
comment on column memory.archive_reviews.place is 'the last text of the archive that was compared with those before it';
comment on column memory.archive_reviews.claim is 'grows with each owner of the work: a former one writes nothing';

create table memory.passage_digests (
  organization_id text not null,
  archive_id text not null,
  passage_id text not null,
  digest bytea not null,
  primary key (organization_id, archive_id, passage_id),
  foreign key (organization_id, archive_id, passage_id)
    references memory.passages (organization_id, archive_id, id) on delete cascade
);
comment on column memory.passage_digests.digest is 'of the words of the text, letters, case and punctuation apart';
create index passage_digests_by_content on memory.passage_digests (organization_id, archive_id, digest);

alter table memory.search_positions
  add column reviewed bigint not null default 0,
  add column claim bigint not null default 0,
  add column leased_until timestamptz not null default '-infinity';
comment on column memory.search_positions.reviewed is 'up to where its messages are compared with blocks';
update memory.search_positions set reviewed = seq;
create index search_positions_unreviewed on memory.search_positions (organization_id, conversation_id)
  where seq > reviewed;

alter table memory.block_history add column suggestion_id text;
"""


def upgrade() -> None:
    """Make the tables. Archives are looked through when something is written to them next."""
    for statements in (POLICIES, SUGGESTIONS):
        op.execute(statements)
