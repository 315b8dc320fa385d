"""The hot statements of the agent loop: one function call, one round trip, at a cost independent of the history."""

from alembic import op

revision = "0002"
down_revision = "0001"

SHARED = """
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

create function memory.blocks_of(p_org text, p_agent text, p_conversation text) returns setof memory.blocks
language sql stable as $$
  select b.*
  from memory.agent_blocks l
  join memory.blocks b on b.organization_id = l.organization_id and b.id = l.block_id
  where l.organization_id = p_org and l.agent_id = p_agent
    and not exists (
      select from memory.conversation_blocks o
      where o.organization_id = p_org and o.conversation_id = p_conversation and o.label = l.label)
  union all
  select b.*
  from memory.conversation_blocks l
  join memory.blocks b on b.organization_id = l.organization_id and b.id = l.block_id
  where l.organization_id = p_org and l.conversation_id = p_conversation
$$;

create function memory.append_messages(
  p_org text, p_conversation text, p_agent text, p_first bigint, p_pending boolean,
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[]
) returns void language sql as $$
  insert into memory.messages (
    organization_id, conversation_id, seq, id, agent_id, role, types, flags, run_id, step_id, group_id, created_at,
    pending, search, body)
  select p_org, p_conversation, p_first + m.place - 1, m.id, p_agent, m.role, m.types, m.flags,
    nullif(m.run_id, ''), nullif(m.step_id, ''), nullif(m.group_id, ''), m.created_at,
    p_pending and m.search <> '', m.search, m.body
  from unnest(p_ids, p_roles, p_types, p_flags, p_runs, p_steps, p_groups, p_times, p_searches, p_bodies)
    with ordinality as m (id, role, types, flags, run_id, step_id, group_id, created_at, search, body, place)
$$;
"""

BEGIN = """
create function memory.begin_step(
  p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint, p_pending boolean,
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[]
) returns setof memory.step_row language plpgsql as $$
declare
  c memory.conversations;
  r memory.step_row;
  n bigint := cardinality(p_ids);
begin
  select * into c from memory.conversations t
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for no key update;
  r.status := case when not found then 1 when p_fence < c.fence then 2 else 0 end;
  if r.status <> 0 then
    r.fence := c.fence;
    return next r;
    return;
  end if;
  if n > 0 then
    insert into memory.committed_steps (organization_id, run_id, step_index, conversation_id)
    values (p_org, p_run, -1, p_conversation) on conflict do nothing;
    if not found then
      n := 0;
    end if;
  end if;
  if n > 0 then
    perform memory.append_messages(p_org, p_conversation, p_agent, c.next_seq, p_pending, p_ids, p_roles, p_types,
      p_flags, p_runs, p_steps, p_groups, p_times, p_searches, p_bodies);
  end if;
  if n > 0 or p_fence > c.fence then
    update memory.conversations t
    set fence = p_fence, next_seq = c.next_seq + n, message_count = c.message_count + n
    where t.organization_id = p_org and t.id = p_conversation;
  end if;
  r.fence := p_fence;
  r.message_count := c.message_count + n;
  select s.step_index, s.stop_reason into r.last_step, r.last_stop from memory.committed_steps s
  where s.organization_id = p_org and s.run_id = p_run and s.step_index >= 0 order by s.step_index desc limit 1;
  select a.passage_count into r.passage_count from memory.archive_agents l
  join memory.archives a on a.organization_id = l.organization_id and a.id = l.archive_id
  where l.organization_id = p_org and l.agent_id = p_agent;
  r.messages := memory.window_of(c);
  return next r;
  return query
    select null::smallint, null::bigint, null::boolean, null::bigint, null::bigint, null::integer,
      null::smallint, null::text[], null::bytea[], b
    from memory.blocks_of(p_org, p_agent, p_conversation) b order by b.label collate "C";
end $$;
"""

WINDOW = """
-- The messages in context: the first one, the summary, and the rest from the window's start.
create function memory.window_of(c memory.conversations) returns bytea[] language sql stable as $$
  select coalesce(array_agg(m.body order by m.lane, m.seq), '{}')
  from (
    select 0 as lane, f.seq, f.body from memory.messages f
    where f.organization_id = c.organization_id and f.conversation_id = c.id and f.seq = c.first_seq
    union all
    select 1, s.seq, s.body from memory.messages s
    where s.organization_id = c.organization_id and s.conversation_id = c.id and s.seq = c.summary_seq
    union all
    select 2, w.seq, w.body from memory.messages w
    where w.organization_id = c.organization_id and w.conversation_id = c.id
      and w.seq >= c.window_seq and w.seq <> c.first_seq and w.role <> 6
  ) m
$$;

-- The ids of the messages in context, in the same order.
create function memory.window_ids_of(c memory.conversations) returns text[] language sql stable as $$
  select coalesce(array_agg(m.id order by m.lane, m.seq), '{}')
  from (
    select 0 as lane, f.seq, f.id from memory.messages f
    where f.organization_id = c.organization_id and f.conversation_id = c.id and f.seq = c.first_seq
    union all
    select 1, s.seq, s.id from memory.messages s
    where s.organization_id = c.organization_id and s.conversation_id = c.id and s.seq = c.summary_seq
    union all
    select 2, w.seq, w.id from memory.messages w
    where w.organization_id = c.organization_id and w.conversation_id = c.id
      and w.seq >= c.window_seq and w.seq <> c.first_seq and w.role <> 6
  ) m
$$;
"""

COMMIT = """
create function memory.commit_step(
  p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint, p_step integer, p_stop smallint,
  p_pending boolean, p_move boolean, p_summary boolean, p_first_kept text, p_known_ids text[],
  p_known_versions bigint[],
  p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[],
  p_groups text[], p_times timestamptz[], p_searches text[], p_bodies bytea[]
) returns setof memory.step_row language plpgsql as $$
declare
  c memory.conversations;
  r memory.step_row;
  n bigint := cardinality(p_ids);
  kept bigint;
begin
  select * into c from memory.conversations t
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for no key update;
  r.status := case when not found then 1 when p_fence < c.fence then 2 else 0 end;
  if r.status <> 0 then
    r.fence := c.fence;
    return next r;
    return;
  end if;
  insert into memory.committed_steps (organization_id, run_id, step_index, conversation_id, stop_reason)
  values (p_org, p_run, p_step, p_conversation, p_stop) on conflict do nothing;
  r.repeated := not found;
  if not r.repeated then
    perform memory.append_messages(p_org, p_conversation, p_agent, c.next_seq, p_pending, p_ids, p_roles, p_types,
      p_flags, p_runs, p_steps, p_groups, p_times, p_searches, p_bodies);
    if p_move then
      kept := c.next_seq;
      if p_first_kept <> '' then
        select m.seq into kept from memory.messages m
        where m.organization_id = p_org and m.id = p_first_kept and m.conversation_id = p_conversation;
        if kept is null then
          raise exception 'no message % in conversation %', p_first_kept, p_conversation using errcode = 'LM001';
        end if;
      end if;
      c.window_seq := kept;
      c.summary_seq := case when p_summary then c.next_seq + n - 1 end;
    end if;
    update memory.conversations t
    set fence = p_fence, next_seq = c.next_seq + n, message_count = c.message_count + n, window_seq = c.window_seq,
      summary_seq = c.summary_seq
    where t.organization_id = p_org and t.id = p_conversation;
    c.message_count := c.message_count + n;
  end if;
  r.fence := p_fence;
  r.message_count := c.message_count;
  r.notes := array(
    select k.id from unnest(p_known_ids) k (id)
    where not exists (select from memory.blocks_of(p_org, p_agent, p_conversation) b where b.id = k.id));
  return next r;
  return query
    select null::smallint, null::bigint, null::boolean, null::bigint, null::bigint, null::integer,
      null::smallint, null::text[], null::bytea[], b
    from memory.blocks_of(p_org, p_agent, p_conversation) b
    left join unnest(p_known_ids, p_known_versions) k (id, version) on k.id = b.id
    where k.version is distinct from b.version order by b.label collate "C";
end $$;
"""


def upgrade() -> None:
    """Make the functions."""
    for statements in (SHARED, WINDOW, BEGIN, COMMIT):
        op.execute(statements)
