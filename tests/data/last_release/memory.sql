CREATE SCHEMA memory;
CREATE TYPE memory.message_hit AS (
	score double precision,
	word_place integer,
	meaning_place integer,
	id text,
	agent_id text,
	conversation_id text,
	created_at timestamp with time zone,
	body bytea
);
CREATE TABLE memory.passages (
    organization_id text NOT NULL,
    archive_id text NOT NULL,
    id text NOT NULL,
    text text NOT NULL,
    tags text[],
    metadata text DEFAULT '{}'::text NOT NULL,
    created_by_id text,
    last_updated_by_id text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    pending boolean DEFAULT false NOT NULL,
    embedding extensions.halfvec,
    embedder text DEFAULT ''::text NOT NULL,
    words tsvector GENERATED ALWAYS AS (to_tsvector('english'::regconfig, text)) STORED,
    generation integer DEFAULT 0 NOT NULL,
    request_hash bytea
);
ALTER TABLE ONLY memory.passages ALTER COLUMN embedding SET STORAGE MAIN;
CREATE TYPE memory.passage_hit AS (
	score double precision,
	word_place integer,
	meaning_place integer,
	passage memory.passages
);
CREATE TYPE memory.passage_row AS (
	status smallint,
	archive_embedder text,
	passage memory.passages
);
CREATE TABLE memory.blocks (
    organization_id text NOT NULL,
    id text NOT NULL,
    label text NOT NULL,
    value text NOT NULL,
    char_limit integer NOT NULL,
    description text,
    read_only boolean DEFAULT false NOT NULL,
    metadata text DEFAULT '{}'::text NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    hidden boolean,
    project_id text,
    template_name text,
    is_template boolean DEFAULT false NOT NULL,
    template_id text,
    base_template_id text,
    deployment_id text,
    entity_id text,
    preserve_on_migration boolean,
    created_by_id text,
    last_updated_by_id text,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    request_hash bytea
);
CREATE TYPE memory.step_row AS (
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
CREATE FUNCTION memory.any_word(p_text text) RETURNS tsquery
    LANGUAGE sql IMMUTABLE
    AS $$
  select replace(plainto_tsquery('pg_catalog.english', p_text)::text, ' & ', ' | ')::tsquery
$$;
CREATE FUNCTION memory.append_messages(p_org text, p_conversation text, p_agent text, p_first bigint, p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[], p_groups text[], p_times timestamp with time zone[], p_searches text[], p_bodies bytea[]) RETURNS void
    LANGUAGE sql
    AS $$
  insert into memory.messages (
    organization_id, conversation_id, seq, id, agent_id, role, types, flags, run_id, step_id, group_id, created_at,
    pending, search, body)
  select p_org, p_conversation, p_first + m.place - 1, m.id, p_agent, m.role, m.types, m.flags,
    m.run_id, m.step_id, m.group_id, m.created_at,
    m.search <> '', m.search, m.body
  from unnest(p_ids, p_roles, p_types, p_flags, p_runs, p_steps, p_groups, p_times, p_searches, p_bodies)
    with ordinality as m (id, role, types, flags, run_id, step_id, group_id, created_at, search, body, place)
$$;
CREATE FUNCTION memory.begin_step(p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint, p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[], p_groups text[], p_times timestamp with time zone[], p_searches text[], p_bodies bytea[]) RETURNS SETOF memory.step_row
    LANGUAGE plpgsql
    AS $$
declare
  c memory.conversations;
  r memory.step_row;
  n bigint := cardinality(p_ids);
begin
  select * into c from memory.conversations t
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for no key update;
  r.status := case when not found then 1 /* Status.NO_CONVERSATION */ when p_fence < c.fence then 2 /* Status.FENCED */
    else 0 /* Status.DONE */ end;
  if r.status <> 0 /* Status.DONE */ then
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
    perform memory.append_messages(p_org, p_conversation, p_agent, c.next_seq, p_ids, p_roles, p_types,
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
CREATE FUNCTION memory.blocks_of(p_org text, p_agent text, p_conversation text) RETURNS SETOF memory.blocks
    LANGUAGE sql STABLE
    AS $$
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
CREATE FUNCTION memory.commit_step(p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint, p_step integer, p_stop smallint, p_move boolean, p_clear boolean, p_summary boolean, p_first_kept text, p_known_ids text[], p_known_versions bigint[], p_ids text[], p_roles smallint[], p_types integer[], p_flags smallint[], p_runs text[], p_steps text[], p_groups text[], p_times timestamp with time zone[], p_searches text[], p_bodies bytea[]) RETURNS SETOF memory.step_row
    LANGUAGE plpgsql
    AS $$
declare
  c memory.conversations;
  r memory.step_row;
  n bigint := cardinality(p_ids);
  kept bigint;
begin
  select * into c from memory.conversations t
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for no key update;
  r.status := case when not found then 1 /* Status.NO_CONVERSATION */ when p_fence < c.fence then 2 /* Status.FENCED */
    else 0 /* Status.DONE */ end;
  if r.status <> 0 /* Status.DONE */ then
    r.fence := c.fence;
    return next r;
    return;
  end if;
  insert into memory.committed_steps (organization_id, run_id, step_index, conversation_id, stop_reason)
  values (p_org, p_run, p_step, p_conversation, p_stop) on conflict do nothing;
  r.repeated := not found;
  if not r.repeated then
    perform memory.append_messages(p_org, p_conversation, p_agent, c.next_seq, p_ids, p_roles, p_types,
      p_flags, p_runs, p_steps, p_groups, p_times, p_searches, p_bodies);
    if p_move then
      kept := c.next_seq;
      if p_clear then
        kept := c.next_seq + n;
      elsif p_first_kept is not null then
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
CREATE FUNCTION memory.edit_block(p_org text, p_user text, p_agent text, p_conversation text, p_fence bigint, p_key text, p_hash bytea, p_label text, p_kind smallint, p_text text, p_new text, p_line integer, p_all boolean, p_new_id text, p_now timestamp with time zone) RETURNS SETOF memory.step_row
    LANGUAGE plpgsql
    AS $$
declare
  highest bigint;
  b memory.blocks;
  h memory.block_history;
  r memory.step_row;
  lines text[];
  n integer;
begin
  r.status := 0 /* Status.DONE */;
  r.repeated := false;
  select t.fence into highest from memory.conversations t
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for share;
  r.fence := highest;
  if highest is null or p_fence < highest then
    r.status := case when highest is null then 1 /* Status.NO_CONVERSATION */ else 2 /* Status.FENCED */ end;
    return next r;
    return;
  end if;
  if p_fence > highest then
    update memory.conversations t set fence = p_fence where t.organization_id = p_org and t.id = p_conversation;
    r.fence := p_fence;
  end if;
  select b2.* into b from memory.blocks_of(p_org, p_agent, p_conversation) x
  join memory.blocks b2 on b2.organization_id = p_org and b2.id = x.id
  where x.label = p_label for update of b2;
  select * into h from memory.block_history t where t.organization_id = p_org and t.edit_key = p_key;
  if h.block_id is not null then
    r.repeated := true;
    r.status := case when h.edit_hash = p_hash then 0 /* Status.DONE */ else 3 /* Status.OTHER_EDIT */ end;
    select * into b from memory.blocks t where t.organization_id = p_org and t.id = h.block_id;
    b.organization_id := p_org;
    b.id := h.block_id;
    b.label := h.label;
    b.value := h.value;
    b.description := h.description;
    b.version := h.version;
    r.block := b;
    return next r;
    return;
  end if;
  if b.id is null then
    if p_kind <> 5 then
      r.status := 4 /* Status.NO_BLOCK */;
      r.notes := array(
        select x.label from memory.blocks_of(p_org, p_agent, p_conversation) x order by x.label collate "C");
      return next r;
      return;
    end if;
    insert into memory.blocks (
      organization_id, id, label, value, char_limit, description, created_by_id, last_updated_by_id, version,
      created_at, updated_at, preserve_on_migration)
    values (p_org, p_new_id, p_label, '', 100000, nullif(p_new, ''), p_user, p_user, 0, p_now, p_now, false)
    returning * into b;
    insert into memory.agent_blocks (organization_id, agent_id, block_id, label) values (p_org, p_agent, b.id, p_label);
  end if;
  if b.read_only then
    r.status := 5 /* Status.READ_ONLY */;
    return next r;
    return;
  end if;
  case p_kind
    when 1 then
      b.value := case when b.value = '' then p_text else b.value || E'\n' || p_text end;
    when 2 then
      n := (length(b.value) - length(replace(b.value, p_text, ''))) / length(p_text);
      if n = 0 or (n > 1 and not p_all) then
        r.status := case when n = 0 then 7 /* Status.NO_MATCH */ else 8 /* Status.NOT_UNIQUE */ end;
        r.notes := memory.lines_of(b.value, p_text);
        return next r;
        return;
      end if;
      b.value := replace(b.value, p_text, p_new);
    when 3 then
      lines := string_to_array(b.value, E'\n');
      n := cardinality(lines);
      if p_line > n then
        r.status := 9 /* Status.NO_LINE */;
        r.notes := array[n::text];
        return next r;
        return;
      end if;
      p_line := case when p_line = -1 then n else p_line end;
      b.value := array_to_string(lines[1:p_line] || p_text || lines[p_line + 1:n], E'\n');
    when 4 then
      b.value := p_text;
    when 5 then
      b.value := p_text;
      b.description := coalesce(nullif(p_new, ''), b.description);
    when 6 then
      delete from memory.agent_blocks t
      where t.organization_id = p_org and t.agent_id = p_agent and t.block_id = b.id;
      delete from memory.conversation_blocks t
      where t.organization_id = p_org and t.conversation_id = p_conversation and t.block_id = b.id;
    when 7 then
      b.description := coalesce(p_new, b.description);
      if p_text <> '' and p_text <> b.label then
        b.label := p_text;
        update memory.agent_blocks t set label = b.label where t.organization_id = p_org and t.block_id = b.id;
        update memory.conversation_blocks t set label = b.label where t.organization_id = p_org and t.block_id = b.id;
      end if;
  end case;
  if p_kind < 6 and length(b.value) > b.char_limit then
    r.status := 6 /* Status.TOO_LONG */;
    r.notes := array[length(b.value)::text, b.char_limit::text];
    if b.version = 0 then
      delete from memory.blocks t where t.organization_id = p_org and t.id = b.id;
    end if;
    return next r;
    return;
  end if;
  update memory.blocks t
  set value = b.value, label = b.label, description = b.description, version = b.version + 1,
    last_updated_by_id = p_user, updated_at = p_now
  where t.organization_id = p_org and t.id = b.id returning * into b;
  insert into memory.block_history (
    organization_id, block_id, version, label, value, description, edit_key, edit_hash, fence, conversation_id,
    written_by_id, created_at)
  values (p_org, b.id, b.version, b.label, b.value, b.description, p_key, p_hash, p_fence, p_conversation, p_user,
    p_now);
  r.block := b;
  return next r;
end $$;
CREATE FUNCTION memory.lines_of(p_text text, p_part text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    AS $$
declare
  found_lines text[] := '{}';
  place integer := 0;
  step integer := strpos(p_text, p_part);
begin
  while step > 0 and cardinality(found_lines) < 100 loop
    place := place + step;
    found_lines := found_lines || cardinality(string_to_array(left(p_text, place - 1) || 'x', E'\n'))::text;
    place := place + length(p_part) - 1;
    step := strpos(substr(p_text, place + 1), p_part);
  end loop;
  return found_lines;
end $$;
CREATE TABLE memory.conversations (
    organization_id text NOT NULL,
    id text NOT NULL,
    agent_id text NOT NULL,
    fence bigint DEFAULT 0 NOT NULL,
    next_seq bigint DEFAULT 1 NOT NULL,
    first_seq bigint DEFAULT 1 NOT NULL,
    window_seq bigint DEFAULT 1 NOT NULL,
    summary_seq bigint,
    message_count bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (fillfactor='70');
CREATE FUNCTION memory.window_ids_of(c memory.conversations) RETURNS text[]
    LANGUAGE sql STABLE
    AS $$
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
      and w.seq >= c.window_seq and w.seq <> c.first_seq and w.role <> 6 /* MessageRole.SUMMARY */
  ) m
$$;
CREATE FUNCTION memory.window_of(c memory.conversations) RETURNS bytea[]
    LANGUAGE sql STABLE
    AS $$
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
      and w.seq >= c.window_seq and w.seq <> c.first_seq and w.role <> 6 /* MessageRole.SUMMARY */
  ) m
$$;
CREATE FUNCTION memory.withdraw_input(p_org text, p_agent text, p_conversation text, p_run text, p_fence bigint, OUT status smallint, OUT fence bigint, OUT withdrawn boolean) RETURNS record
    LANGUAGE plpgsql
    AS $$
declare
  c memory.conversations;
  n bigint;
begin
  withdrawn := false;
  select * into c from memory.conversations t
  where t.organization_id = p_org and t.id = p_conversation and t.agent_id = p_agent for no key update;
  status := case when not found then 1 /* Status.NO_CONVERSATION */
    when p_fence < c.fence then 2 /* Status.FENCED */ else 0 /* Status.DONE */ end;
  fence := c.fence;
  if status <> 0 or exists (
    select from memory.committed_steps s
    where s.organization_id = p_org and s.run_id = p_run and s.step_index >= 0)
  then
    return;
  end if;
  delete from memory.committed_steps s
  where s.organization_id = p_org and s.run_id = p_run and s.step_index = -1 and s.conversation_id = p_conversation;
  if not found then
    return;
  end if;
  with gone as (
    delete from memory.messages m
    where m.organization_id = p_org and m.run_id = p_run and m.conversation_id = p_conversation and m.seq <> c.first_seq
    returning m.organization_id, m.id, m.created_at, m.seq
  ), kept as (
    insert into memory.tombstones (organization_id, id, created_at, seq) select * from gone on conflict do nothing
  )
  select count(*) into n from gone;
  update memory.conversations t set fence = p_fence, message_count = c.message_count - n
  where t.organization_id = p_org and t.id = p_conversation;
  fence := p_fence;
  withdrawn := true;
end $$;
CREATE TABLE memory.agent_blocks (
    organization_id text NOT NULL,
    agent_id text NOT NULL,
    block_id text NOT NULL,
    label text NOT NULL
);
CREATE TABLE memory.agents (
    organization_id text NOT NULL,
    id text NOT NULL,
    name text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    embedder text DEFAULT ''::text NOT NULL
);
CREATE TABLE memory.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE memory.archive_agents (
    organization_id text NOT NULL,
    agent_id text NOT NULL,
    archive_id text NOT NULL
);
CREATE TABLE memory.archives (
    organization_id text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    description text,
    embedder text DEFAULT ''::text NOT NULL,
    dimensions integer,
    metadata text DEFAULT ''::text NOT NULL,
    owner_agent_id text,
    passage_count bigint DEFAULT 0 NOT NULL,
    created_by_id text,
    last_updated_by_id text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    generation integer DEFAULT 0 NOT NULL,
    waiting_since timestamp with time zone,
    tried_at timestamp with time zone,
    failure_reason text DEFAULT ''::text NOT NULL,
    failure text DEFAULT ''::text NOT NULL,
    request_hash bytea
)
WITH (fillfactor='70');
CREATE TABLE memory.block_history (
    organization_id text NOT NULL,
    block_id text NOT NULL,
    version bigint NOT NULL,
    label text NOT NULL,
    value text NOT NULL,
    description text,
    edit_key text,
    edit_hash bytea,
    fence bigint,
    conversation_id text,
    written_by_id text,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE memory.committed_steps (
    organization_id text NOT NULL,
    run_id text NOT NULL,
    step_index integer NOT NULL,
    conversation_id text NOT NULL,
    stop_reason smallint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE memory.conversation_blocks (
    organization_id text NOT NULL,
    conversation_id text NOT NULL,
    block_id text NOT NULL,
    label text NOT NULL
);
CREATE TABLE memory.messages (
    organization_id text NOT NULL,
    conversation_id text NOT NULL,
    seq bigint NOT NULL,
    id text NOT NULL,
    agent_id text NOT NULL,
    role smallint NOT NULL,
    types integer NOT NULL,
    flags smallint DEFAULT 0 NOT NULL,
    run_id text,
    step_id text,
    group_id text,
    created_at timestamp with time zone NOT NULL,
    format smallint DEFAULT 1 NOT NULL,
    pending boolean DEFAULT false NOT NULL,
    search text DEFAULT ''::text NOT NULL,
    words tsvector GENERATED ALWAYS AS (to_tsvector('english'::regconfig, search)) STORED,
    embedding extensions.halfvec,
    embedder text,
    body bytea NOT NULL
);
CREATE TABLE memory.tombstones (
    organization_id text NOT NULL,
    id text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    seq bigint DEFAULT 0 NOT NULL,
    deleted_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE ONLY memory.agent_blocks
    ADD CONSTRAINT agent_blocks_pkey PRIMARY KEY (organization_id, agent_id, block_id);
ALTER TABLE ONLY memory.agents
    ADD CONSTRAINT agents_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY memory.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY memory.archive_agents
    ADD CONSTRAINT archive_agents_pkey PRIMARY KEY (organization_id, agent_id);
ALTER TABLE ONLY memory.archives
    ADD CONSTRAINT archives_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY memory.block_history
    ADD CONSTRAINT block_history_pkey PRIMARY KEY (organization_id, block_id, version);
ALTER TABLE ONLY memory.blocks
    ADD CONSTRAINT blocks_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY memory.committed_steps
    ADD CONSTRAINT committed_steps_pkey PRIMARY KEY (organization_id, run_id, step_index);
ALTER TABLE ONLY memory.conversation_blocks
    ADD CONSTRAINT conversation_blocks_pkey PRIMARY KEY (organization_id, conversation_id, label);
ALTER TABLE ONLY memory.conversations
    ADD CONSTRAINT conversations_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY memory.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (organization_id, conversation_id, seq);
ALTER TABLE ONLY memory.passages
    ADD CONSTRAINT passages_pkey PRIMARY KEY (organization_id, archive_id, id);
ALTER TABLE ONLY memory.tombstones
    ADD CONSTRAINT tombstones_pkey PRIMARY KEY (organization_id, id);
CREATE INDEX agent_blocks_by_block ON memory.agent_blocks USING btree (organization_id, block_id);
CREATE UNIQUE INDEX agent_blocks_by_label ON memory.agent_blocks USING btree (organization_id, agent_id, label);
CREATE INDEX archive_agents_by_archive ON memory.archive_agents USING btree (organization_id, archive_id);
CREATE UNIQUE INDEX archives_by_owner ON memory.archives USING btree (organization_id, owner_agent_id) WHERE (owner_agent_id IS NOT NULL);
CREATE INDEX archives_by_time ON memory.archives USING btree (organization_id, created_at, id);
CREATE INDEX archives_system_waiting ON memory.archives USING btree (tried_at NULLS FIRST) WHERE (waiting_since IS NOT NULL);
CREATE UNIQUE INDEX block_history_by_key ON memory.block_history USING btree (organization_id, edit_key) WHERE (edit_key IS NOT NULL);
CREATE INDEX blocks_by_label ON memory.blocks USING btree (organization_id, label);
CREATE INDEX blocks_by_time ON memory.blocks USING btree (organization_id, created_at, id);
CREATE INDEX committed_steps_system_age ON memory.committed_steps USING brin (created_at);
CREATE INDEX conversation_blocks_by_block ON memory.conversation_blocks USING btree (organization_id, block_id);
CREATE INDEX conversations_by_agent ON memory.conversations USING btree (organization_id, agent_id);
CREATE UNIQUE INDEX messages_by_id ON memory.messages USING btree (organization_id, id);
CREATE INDEX messages_by_run ON memory.messages USING btree (organization_id, run_id, seq) WHERE (run_id IS NOT NULL);
CREATE INDEX messages_by_step ON memory.messages USING btree (organization_id, step_id, seq) WHERE (step_id IS NOT NULL);
CREATE INDEX messages_by_time ON memory.messages USING btree (organization_id, created_at, id);
CREATE INDEX messages_by_word ON memory.messages USING gin (organization_id, words);
CREATE INDEX messages_pending ON memory.messages USING btree (organization_id, conversation_id, seq) WHERE pending;
CREATE INDEX passages_by_generation ON memory.passages USING btree (organization_id, archive_id, generation);
CREATE UNIQUE INDEX passages_by_id ON memory.passages USING btree (organization_id, id);
CREATE INDEX passages_by_time ON memory.passages USING btree (organization_id, archive_id, created_at, id);
CREATE INDEX passages_by_word ON memory.passages USING gin (organization_id, archive_id, words);
CREATE INDEX passages_pending ON memory.passages USING btree (organization_id, archive_id, id) WHERE pending;
CREATE INDEX tombstones_system_age ON memory.tombstones USING brin (deleted_at);
ALTER TABLE ONLY memory.agent_blocks
    ADD CONSTRAINT agent_blocks_organization_id_block_id_fkey FOREIGN KEY (organization_id, block_id) REFERENCES memory.blocks(organization_id, id) ON DELETE CASCADE;
ALTER TABLE ONLY memory.archive_agents
    ADD CONSTRAINT archive_agents_organization_id_archive_id_fkey FOREIGN KEY (organization_id, archive_id) REFERENCES memory.archives(organization_id, id) ON DELETE CASCADE;
ALTER TABLE ONLY memory.conversation_blocks
    ADD CONSTRAINT conversation_blocks_organization_id_block_id_fkey FOREIGN KEY (organization_id, block_id) REFERENCES memory.blocks(organization_id, id) ON DELETE CASCADE;
ALTER TABLE ONLY memory.passages
    ADD CONSTRAINT passages_organization_id_archive_id_fkey FOREIGN KEY (organization_id, archive_id) REFERENCES memory.archives(organization_id, id) ON DELETE CASCADE;
INSERT INTO memory.alembic_version VALUES ('0008');
