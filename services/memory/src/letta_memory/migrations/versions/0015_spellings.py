"""Words as they are spelled, so that a search finds one that is spelled a little differently."""

from alembic import op

revision = "0015"
down_revision = "0014"

TABLES = """
alter table memory.search_texts add column stems text[];
comment on column memory.search_texts.stems is 'stems that a misspelt word may stand for; null: unknown';

create table memory.search_spellings (
  organization_id text not null,
  scope integer not null,
  edge text not null,
  stems text[] not null,
  primary key (organization_id, scope, edge)
);
comment on table memory.search_spellings is 'stems of a scope by their first two letters (ab-) and last two (-yz)';

alter table memory.search_scopes
  add column spelled_place integer not null default 0,
  add column spelled_words bigint not null default 0,
  add column unspelled boolean not null default false;
comment on column memory.search_scopes.spelled_place is 'up to which text search_spellings has the stems';
comment on column memory.search_scopes.spelled_words is 'number of words when that was written';
comment on column memory.search_scopes.unspelled is 'so many words came since that they are to be written there';
drop index memory.search_scopes_system_tasks;
create index search_scopes_system_tasks on memory.search_scopes (scope) where due or untidy or gone or unspelled;
"""

TYPES = """
create type memory.asked_word as (word text, stem text);
create type memory.like_word as (term integer, word text, likeness real);
alter type memory.text_hit add attribute approximate_words text[];
alter type memory.passage_hit add attribute approximate_words text[];
alter type memory.message_hit add attribute approximate_words text[];
"""


def upgrade() -> None:
    """Make the table; stems of former texts are not in it until they are indexed anew."""
    op.execute(TABLES)
    op.execute(TYPES)
