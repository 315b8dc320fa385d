"""What search keeps: texts with their vectors, postings of their words, and what is counted of them."""

from alembic import op

revision = "0012"
down_revision = "0011"

FORMER = """
drop function if exists memory.search_passages, memory.search_messages, memory.write_passages, memory.append_messages,
  memory.begin_step, memory.begin_step_after, memory.commit_step, memory.provision_agent;
drop type memory.passage_hit, memory.message_hit, memory.passage_row;
"""

SCOPES = """
create sequence memory.search_scope_numbers as integer;

-- A scope is an archive or the messages of an agent: what one search looks through.
create table memory.search_scopes (
  organization_id text not null,
  owner_id text not null,
  scope integer not null default nextval('memory.search_scope_numbers'),
  next_place integer not null default 1,
  text_count integer not null default 0,
  word_count bigint not null default 0,
  due_at integer not null default 32,
  cells smallint not null default 0,
  model integer not null default 0,
  due boolean not null default false,
  counted boolean not null default false,
  untidy boolean not null default false,
  gone boolean not null default false,
  mean extensions.halfvec storage main,
  primary key (organization_id, owner_id)
) with (fillfactor = 70);
create unique index search_scopes_by_number on memory.search_scopes (organization_id, scope);
create index search_scopes_system_tasks on memory.search_scopes (scope) where due or untidy or gone;
comment on column memory.search_scopes.due_at is 'number of texts from which on everything is to be counted anew';
comment on column memory.search_scopes.cells is 'in how many cells its vectors lie; 0: all are looked at';
comment on column memory.search_scopes.model is 'which vectors the mean and the cells are of';
comment on column memory.search_scopes.counted is 'search_terms has its words';
comment on column memory.search_scopes.untidy is 'there are postings of texts that were removed';
comment on column memory.search_scopes.gone is 'its archive or agent was removed';
"""

TEXTS = """
create table memory.search_texts (
  scope integer not null,
  place integer not null,
  words smallint not null,
  role smallint not null default 0,
  types integer not null default 0,
  speaker integer not null default 0,
  model integer not null default 0,
  cell smallint not null default -2,
  pending boolean not null default false,
  posted boolean not null default true,
  created_at timestamptz not null,
  organization_id text not null,
  embedding extensions.halfvec storage main,
  conversation_id text,
  seq bigint,
  passage_id text,
  tags text[],
  terms integer[] not null,
  primary key (organization_id, scope, place)
);
create unique index search_texts_by_message on memory.search_texts (organization_id, conversation_id, seq)
  where conversation_id is not null;
create index search_texts_by_cell on memory.search_texts (organization_id, scope, cell) where cell >= -1;
create index search_texts_pending on memory.search_texts (organization_id, scope, place) where pending;
create index search_texts_unposted on memory.search_texts (organization_id, scope, place) where not posted;
comment on column memory.search_texts.place is 'numbers the texts of a scope as they came';
comment on column memory.search_texts.cell is '-1: not placed yet, -2: the scope has no cells';
comment on column memory.search_texts.pending is 'a message that waits to be embedded';

create table memory.search_postings (
  scope integer not null,
  term integer not null,
  place integer not null,
  uses smallint not null,
  words smallint not null,
  organization_id text not null,
  primary key (organization_id, scope, term, place) include (uses, words)
);
comment on column memory.search_postings.term is 'hashtext of a stem';
comment on column memory.search_postings.words is 'length of the text, so that a search scores without reading it';

create table memory.search_terms (
  organization_id text not null,
  scope integer not null,
  term integer not null,
  texts integer not null,
  primary key (organization_id, scope, term) include (texts)
);
comment on table memory.search_terms is 'in how many texts words are, in large scopes';

create table memory.search_cells (
  organization_id text not null,
  scope integer not null,
  cell smallint not null,
  centre extensions.halfvec storage main not null,
  primary key (organization_id, scope, cell)
);

create table memory.search_positions (
  organization_id text not null,
  conversation_id text not null,
  seq bigint not null default 0,
  primary key (organization_id, conversation_id),
  foreign key (organization_id, conversation_id) references memory.conversations (organization_id, id) on delete cascade
);
comment on table memory.search_positions is 'up to where the messages of a conversation are indexed';

create table memory.search_removals (
  organization_id text not null,
  scope integer not null,
  place integer not null,
  terms integer[] not null,
  primary key (organization_id, scope, place)
);
comment on table memory.search_removals is 'texts that are removed, whose postings are not';
"""

MOVE = """
alter table memory.passages add column scope integer, add column place integer;
insert into memory.search_scopes (organization_id, owner_id) select a.organization_id, a.id from memory.archives a;
with placed as (
  select p.organization_id, p.archive_id, p.id, s.scope,
    row_number() over (partition by p.organization_id, p.archive_id order by p.created_at, p.id) as place
  from memory.passages p
  join memory.search_scopes s on s.organization_id = p.organization_id and s.owner_id = p.archive_id)
update memory.passages p set scope = x.scope, place = x.place from placed x
where p.organization_id = x.organization_id and p.archive_id = x.archive_id and p.id = x.id;
insert into memory.search_texts (
  scope, place, words, model, posted, created_at, organization_id, embedding, passage_id, tags, terms)
select p.scope, p.place, least(length(p.words), 32767),
  coalesce(hashtext(p.embedder || ' ' || extensions.vector_dims(p.embedding)), 0),
  false, p.created_at, p.organization_id, p.embedding, p.id, p.tags, '{}'
from memory.passages p;
update memory.search_scopes s
set text_count = x.texts, word_count = x.words, next_place = x.texts + 1, due = true, untidy = true
from (select organization_id, scope, count(*) as texts, sum(words) as words from memory.search_texts group by 1, 2) x
where s.organization_id = x.organization_id and s.scope = x.scope;
alter table memory.passages alter column scope set not null, alter column place set not null;
alter table memory.passages drop column words, drop column embedding;
drop index memory.messages_by_word;
alter table memory.messages drop column pending, drop column embedding, drop column embedder;
"""

TYPES = """
create type memory.text_filter as (
  conversation_id text, roles smallint[], types integer, tags text[], all_tags boolean,
  since timestamptz, until timestamptz);
create type memory.new_posting as (key bigint, term integer, uses smallint, words smallint, role smallint);
create type memory.text_hit as (
  key bigint, score float8, word_place integer, meaning_place integer, word_score float8, meaning_score float8);
create type memory.passage_hit as (
  score float8, word_place integer, meaning_place integer, word_score float8, meaning_score float8,
  passage memory.passages, embedding extensions.halfvec);
create type memory.message_hit as (
  score float8, word_place integer, meaning_place integer, word_score float8, meaning_score float8,
  id text, agent_id text, conversation_id text, created_at timestamptz, body bytea);
create type memory.passage_row as (
  status smallint, archive_embedder text, passage memory.passages, embedding extensions.halfvec);
"""


def upgrade() -> None:
    """Make the tables, and move what is there to them; postings of former rows are written in the background."""
    for statements in (FORMER, SCOPES, TEXTS, MOVE, TYPES):
        op.execute(statements)
