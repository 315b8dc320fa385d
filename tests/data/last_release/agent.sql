CREATE SCHEMA agent;
CREATE FUNCTION agent.admit_run(p_organization_id text, p_agent_id text, p_conversation_id text, p_run_id text, p_key text, p_request_hash bytea, p_user_id text, p_scopes text[], p_request bytea, p_input bytea, p_background boolean, p_run_type text, p_most_waiting integer, p_approved text[], p_answers text[], p_denies boolean, p_owner text, p_lease_ms integer, OUT outcome text, OUT run_id text, OUT fence bigint, OUT request_hash bytea, OUT definition bytea, OUT conversation bytea, OUT secrets bytea, OUT tool_ids text[], OUT context_tokens integer, OUT approval_message_id text, OUT approval_call_ids text[], OUT approval_message bytea, OUT resumes boolean) RETURNS record
    LANGUAGE plpgsql
    AS $$
declare
  v_queue agent.conversation_queue;
  v_until timestamptz := clock_timestamp() + p_lease_ms * interval '1 millisecond';
begin
  if p_key is not null then
    select r.id, r.request_hash into run_id, request_hash from agent.runs r
    where r.organization_id = p_organization_id and r.conversation_id = p_conversation_id and r.idempotency_key = p_key;
    if found then
      outcome := 'known';
      return;
    end if;
  end if;
  select a.definition, a.secrets, q.context_tokens, array(
      select t.tool_id from agent.agent_tools t
      where t.organization_id = a.organization_id and t.agent_id = a.id order by t.position, t.tool_id)
    into definition, secrets, context_tokens, tool_ids
    from agent.agents a left join agent.conversation_queue q
      on q.organization_id = a.organization_id and q.conversation_id = p_conversation_id
    where a.organization_id = p_organization_id and a.id = p_agent_id and a.state = 1 /* Stage.READY */;
  if not found then
    outcome := 'no_agent';
    return;
  end if;
  if p_conversation_id <> p_agent_id then
    select c.definition into conversation from agent.conversations c
    where c.organization_id = p_organization_id and c.id = p_conversation_id and c.agent_id = p_agent_id
      and c.state = 1 /* Stage.READY */;
    if not found then
      outcome := 'no_conversation';
      return;
    end if;
  end if;
  insert into agent.conversation_queue as q
    (organization_id, conversation_id, agent_id, run_id, owner, fence, lease_until, last_message_at)
  values (p_organization_id, p_conversation_id, p_agent_id, p_run_id, p_owner, 1, v_until, clock_timestamp())
  on conflict (organization_id, conversation_id) do update
    set run_id = excluded.run_id, owner = excluded.owner, fence = q.fence + 1, lease_until = excluded.lease_until,
        last_message_at = excluded.last_message_at
    where q.run_id is null
      and case
        when q.approval_message_id is null
          then q.pending = 0 and (p_approved is null or agent.resumes(q, p_key, p_request_hash))
        when p_approved is null then q.pending = 0 and p_denies
        else p_approved && (q.approval_call_ids || q.approval_message_id) end
  returning q.* into v_queue;
  if not found or (v_queue.fence = 1 and p_approved is not null) then
    if found then
      delete from agent.conversation_queue q
      where q.organization_id = p_organization_id and q.conversation_id = p_conversation_id;
      outcome := 'not_pending';
      return;
    end if;
    if p_key is not null then
      select r.id, r.request_hash into run_id, request_hash from agent.runs r
      where r.organization_id = p_organization_id and r.conversation_id = p_conversation_id
        and r.idempotency_key = p_key;
      if found then
        outcome := 'known';
        return;
      end if;
    end if;
    select q.* into v_queue from agent.conversation_queue q
    where q.organization_id = p_organization_id and q.conversation_id = p_conversation_id for update;
    if p_answers is not null then
      select r.id, r.request_hash into run_id, request_hash from agent.runs r
      where r.organization_id = p_organization_id and r.agent_id = p_agent_id and r.conversation_id = p_conversation_id
        and r.answers = p_answers
      order by r.created_at desc, r.id desc limit 1;
      if found then
        outcome := 'answered';
        return;
      end if;
    end if;
    if v_queue.run_id is null and (
      v_queue.pending = 0 or p_approved is not null or v_queue.approval_message_id is not null)
    then
      approval_message_id := v_queue.approval_message_id;
      approval_call_ids := v_queue.approval_call_ids;
      outcome := case when p_approved is not null then 'not_pending'
                      when approval_message_id is null then 'busy' else 'pending' end;
      return;
    end if;
    run_id := v_queue.run_id;
    if v_queue.pending >= p_most_waiting then
      outcome := case p_most_waiting when 0 then 'busy' else 'full' end;
      return;
    end if;
    update agent.conversation_queue q set pending = q.pending + 1
    where q.organization_id = p_organization_id and q.conversation_id = p_conversation_id;
    outcome := 'queued';
  else
    outcome := 'claimed';
    fence := v_queue.fence;
    resumes := agent.resumes(v_queue, p_key, p_request_hash);
    if not resumes then
      approval_message_id := v_queue.approval_message_id;
      approval_call_ids := v_queue.approval_call_ids;
      approval_message := v_queue.approval_message;
    end if;
  end if;
  insert into agent.runs (organization_id, id, agent_id, conversation_id, idempotency_key, request_hash, status,
    background, run_type, user_id, scopes, request, input, answers, started_at)
  values (p_organization_id, p_run_id, p_agent_id, p_conversation_id, p_key, p_request_hash,
    case outcome when 'claimed' then 2 /* RunStatus.RUNNING */ else 1 /* RunStatus.CREATED */ end, 
    p_background, p_run_type, p_user_id, p_scopes, p_request, case when resumes then '' else p_input end, p_answers,
    case outcome when 'claimed' then clock_timestamp() end);
  run_id := p_run_id;
end $$;
CREATE FUNCTION agent.checkpoint_step(p_organization_id text, p_conversation_id text, p_run_id text, p_fence bigint, p_step_index integer, p_id text, p_agent_id text, p_output bytea) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
  perform 1 from agent.conversation_queue q
  where q.organization_id = p_organization_id and q.conversation_id = p_conversation_id and q.run_id = p_run_id
    and q.fence = p_fence
  for share;
  if not found then
    return false;
  end if;
  insert into agent.run_steps (organization_id, run_id, step_index, id, agent_id, fence, output)
  values (p_organization_id, p_run_id, p_step_index, p_id, p_agent_id, p_fence, p_output)
  on conflict (organization_id, run_id, step_index) do nothing;
  return true;
end $$;
CREATE FUNCTION agent.claim_due_runs(p_owner text, p_lease_ms integer, p_limit integer, p_of_one integer, p_organization_ids text[], p_left integer[]) RETURNS TABLE(organization_id text, agent_id text, conversation_id text, run_id text, fence bigint, user_id text, scopes text[], definition bytea, conversation bytea, secrets bytea, tool_ids text[], context_tokens integer, request bytea, input bytea, claims integer, background boolean, run_type text, cancel_requested boolean, approval_message_id text, approval_call_ids text[], approval_message bytea)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
begin
  return query
  with recursive at_work as (
    (select q.organization_id, q.lease_until from agent.conversation_queue q
     where q.run_id is not null or q.pending > 0
     order by q.organization_id, q.lease_until limit 1)
    union all
    select n.organization_id, n.lease_until
    from at_work w cross join lateral (
      select q.organization_id, q.lease_until from agent.conversation_queue q
      where q.organization_id > w.organization_id and (q.run_id is not null or q.pending > 0)
      order by q.organization_id, q.lease_until limit 1) n
  ), open as materialized (
    select w.organization_id, w.lease_until, coalesce(l.room, p_of_one) as room,
      least(coalesce(l.room, p_of_one), greatest(p_limit / count(*) over (), 1)) as share
    from at_work w left join unnest(p_organization_ids, p_left) l(organization_id, room)
      on l.organization_id = w.organization_id
    where w.lease_until <= v_now and coalesce(l.room, p_of_one) > 0
  ), due as (
    select d.*
    from (select o.organization_id, o.share from open o order by o.room desc, o.lease_until) o
    cross join lateral (
      select q.organization_id, q.conversation_id, q.run_id as held, coalesce((
          select h.id from agent.runs h
          where h.organization_id = q.organization_id and h.id = q.run_id
            and h.status in (1 /* RunStatus.CREATED */, 2 /* RunStatus.RUNNING */)), (
          select w.id from agent.runs w
          where w.organization_id = q.organization_id and w.conversation_id = q.conversation_id
            and w.status = 1 /* RunStatus.CREATED */
          order by w.created_at, w.id limit 1)) as run_id
      from agent.conversation_queue q
      where q.organization_id = o.organization_id and (q.run_id is not null or q.pending > 0)
        and q.lease_until <= v_now
        and exists (
          select from agent.agents a
          where a.organization_id = q.organization_id and a.id = q.agent_id and a.state = 1 /* Stage.READY */)
        and (q.conversation_id = q.agent_id or exists (
          select from agent.conversations v
          where v.organization_id = q.organization_id and v.id = q.conversation_id and v.state = 1 /* Stage.READY */))
      order by q.lease_until
      limit o.share
      for update of q skip locked) d
    limit p_limit
  ), claimed as (
    update agent.conversation_queue q
    set owner = case when due.run_id is null then null else p_owner end,
        fence = q.fence + 1,
        lease_until = case when due.run_id is null then q.lease_until
                           else v_now + p_lease_ms * interval '1 millisecond' end,
        run_id = due.run_id,
        pending = case when due.run_id is null then 0 when due.run_id is distinct from due.held
                       then greatest(q.pending - 1, 0) else q.pending end
    from due
    where q.organization_id = due.organization_id and q.conversation_id = due.conversation_id
    returning q.*
  ), begun as (
    update agent.runs r
    set status = 2 /* RunStatus.RUNNING */, claims = r.claims + case when r.status = 2 /* RunStatus.RUNNING */ then 1 else 0 end,
        started_at = coalesce(r.started_at, v_now)
    from claimed c
    where r.organization_id = c.organization_id and r.id = c.run_id
      and r.status in (1 /* RunStatus.CREATED */, 2 /* RunStatus.RUNNING */)
    returning r.*
  )
  select b.organization_id, b.agent_id, b.conversation_id, b.id, c.fence, b.user_id, b.scopes, a.definition,
    v.definition, a.secrets, array(select t.tool_id from agent.agent_tools t
      where t.organization_id = b.organization_id and t.agent_id = b.agent_id order by t.position, t.tool_id),
    c.context_tokens, b.request, b.input, b.claims, b.background, b.run_type, b.cancel_requested,
    c.approval_message_id, c.approval_call_ids, c.approval_message
  from begun b
  join claimed c on c.organization_id = b.organization_id and c.run_id = b.id
  join agent.agents a on a.organization_id = b.organization_id and a.id = b.agent_id
  left join agent.conversations v on v.organization_id = b.organization_id and v.id = b.conversation_id;
end $$;
CREATE FUNCTION agent.close_run(p_organization_id text, p_agent_id text, p_conversation_id text, p_run_id text, p_fence bigint, p_status smallint, p_stop_reason smallint, p_error text, p_context_tokens integer, p_ttft_ns bigint, p_approval_message_id text, p_approval_call_ids text[], p_approval_message bytea, p_keeps_approval boolean, p_keeps_input boolean, p_index integer[], p_id text[], p_model text[], p_provider text[], p_window integer[], p_prompt integer[], p_completion integer[], p_cached integer[], p_written integer[], p_reasoning integer[], p_stop smallint[], p_step_status smallint[], p_started bigint[], p_step_ns bigint[], p_llm_started bigint[], p_llm_ns bigint[], p_tool_ns bigint[], p_tool_steps integer[], p_tools text[]) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
  v_started timestamptz;
  v_hash bytea;
  v_now timestamptz := clock_timestamp();
  v_pending integer;
begin
  select r.created_at, r.request_hash into v_started, v_hash from agent.runs r
  where r.organization_id = p_organization_id and r.id = p_run_id;
  update agent.conversation_queue q
  set run_id = null, owner = null, lease_until = v_now, last_run_completion = v_now,
      last_run_duration_ms = extract(epoch from v_now - v_started) * 1000, last_stop_reason = p_stop_reason,
      context_tokens = p_context_tokens, failed_hash = case when p_keeps_input then v_hash end,
      approval_message_id = case when p_keeps_approval then q.approval_message_id else p_approval_message_id end,
      approval_call_ids = case when p_keeps_approval then q.approval_call_ids else p_approval_call_ids end,
      approval_message = case when p_keeps_approval then q.approval_message else p_approval_message end,
      approval_since = case when p_keeps_approval or p_approval_message_id = q.approval_message_id
                            then q.approval_since when p_approval_message_id is not null then v_now end
  where q.organization_id = p_organization_id and q.conversation_id = p_conversation_id and q.run_id = p_run_id
    and q.fence = p_fence
  returning q.pending into v_pending;
  if not found then
    return -1;
  end if;
  insert into agent.run_steps as s (organization_id, run_id, step_index, id, agent_id, fence, model, provider_type,
    context_window, prompt_tokens, completion_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
    stop_reason, status, started_ns, step_ns, llm_started_ns, llm_ns, tool_ns, tools_used,
    error_type, error_message)
  select p_organization_id, p_run_id, u.i, u.id, p_agent_id, p_fence, u.model, u.provider, u.win, u.prompt,
    u.completion, u.cached, u.written, u.reasoning, u.stop, u.status, u.started, u.step_ns, u.llm_started, u.llm_ns,
    u.tool_ns, array(select t.name from unnest(p_tool_steps, p_tools) with ordinality t(i, name, place)
      where t.i = u.i order by t.place),
    case u.status when 3 /* StepStatus.FAILED */ then coalesce(nullif(p_error, '')::json->>'error_type', '') else '' end,
    case u.status when 3 /* StepStatus.FAILED */ then coalesce(nullif(p_error, '')::json->>'message', '') else '' end
  from unnest(p_index, p_id, p_model, p_provider, p_window, p_prompt, p_completion, p_cached, p_written, p_reasoning,
    p_stop, p_step_status, p_started, p_step_ns, p_llm_started, p_llm_ns, p_tool_ns)
    as u(i, id, model, provider, win, prompt, completion, cached, written, reasoning, stop, status, started, step_ns,
      llm_started, llm_ns, tool_ns)
  on conflict (organization_id, run_id, step_index) do update
  set model = excluded.model, provider_type = excluded.provider_type, context_window = excluded.context_window,
      prompt_tokens = excluded.prompt_tokens, completion_tokens = excluded.completion_tokens,
      cached_input_tokens = excluded.cached_input_tokens, cache_write_tokens = excluded.cache_write_tokens,
      reasoning_tokens = excluded.reasoning_tokens, stop_reason = excluded.stop_reason, status = excluded.status,
      started_ns = excluded.started_ns, step_ns = excluded.step_ns, llm_started_ns = excluded.llm_started_ns,
      llm_ns = excluded.llm_ns, tool_ns = excluded.tool_ns, tools_used = excluded.tools_used, output = null,
      error_type = excluded.error_type, error_message = excluded.error_message;
  update agent.runs r
  set status = p_status, stop_reason = p_stop_reason, error = p_error, completed_at = v_now,
      context_tokens = p_context_tokens, ttft_ns = greatest(r.ttft_ns, p_ttft_ns),
      step_count = greatest(r.step_count, cardinality(p_index)),
      prompt_tokens = greatest(r.prompt_tokens, (select coalesce(sum(x), 0) from unnest(p_prompt) x)),
      completion_tokens = greatest(r.completion_tokens, (select coalesce(sum(x), 0) from unnest(p_completion) x)),
      cached_input_tokens = greatest(r.cached_input_tokens, (select coalesce(sum(x), 0) from unnest(p_cached) x)),
      cache_write_tokens = greatest(r.cache_write_tokens, (select coalesce(sum(x), 0) from unnest(p_written) x)),
      reasoning_tokens = greatest(r.reasoning_tokens, (select coalesce(sum(x), 0) from unnest(p_reasoning) x))
  where r.organization_id = p_organization_id and r.id = p_run_id;
  return v_pending;
end $$;
CREATE FUNCTION agent.renew_leases(p_owner text, p_lease_ms integer, p_organization_ids text[], p_conversation_ids text[], p_run_ids text[], p_fences bigint[]) RETURNS SETOF text
    LANGUAGE sql
    AS $$
  update agent.conversation_queue q
  set lease_until = clock_timestamp() + p_lease_ms * interval '1 millisecond'
  from unnest(p_organization_ids, p_conversation_ids, p_run_ids, p_fences)
    as h(organization_id, conversation_id, run_id, fence)
  where q.organization_id = h.organization_id and q.conversation_id = h.conversation_id and q.run_id = h.run_id
    and q.fence = h.fence and q.owner = p_owner
  returning q.run_id
$$;
CREATE FUNCTION agent.reopen_run(p_organization_id text, p_run_id text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
  update agent.conversation_queue q set run_id = p_run_id, owner = null, lease_until = clock_timestamp()
  from agent.runs r
  where r.organization_id = p_organization_id and r.id = p_run_id and r.status = 3 /* RunStatus.COMPLETED */
    and r.stop_reason = 12 /* StopReason.REQUIRES_APPROVAL */ and r.completed_at >= q.approval_since
    and q.organization_id = r.organization_id and q.conversation_id = r.conversation_id and q.run_id is null
    and q.approval_message_id is not null;
  if not found then
    return false;
  end if;
  update agent.runs r set status = 2 /* RunStatus.RUNNING */, cancel_requested = true, completed_at = null
  where r.organization_id = p_organization_id and r.id = p_run_id;
  return true;
end $$;
CREATE TABLE agent.conversation_queue (
    organization_id text NOT NULL,
    conversation_id text NOT NULL,
    agent_id text NOT NULL,
    run_id text,
    owner text,
    fence bigint DEFAULT 0 NOT NULL,
    lease_until timestamp with time zone,
    pending integer DEFAULT 0 NOT NULL,
    context_tokens integer DEFAULT 0 NOT NULL,
    approval_message_id text,
    approval_call_ids text[],
    approval_message bytea,
    last_run_completion timestamp with time zone,
    last_run_duration_ms integer,
    last_stop_reason smallint DEFAULT 0 NOT NULL,
    last_message_at timestamp with time zone,
    approval_since timestamp with time zone,
    failed_hash bytea
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.02');
CREATE FUNCTION agent.resumes(q agent.conversation_queue, p_key text, p_request_hash bytea) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
  select coalesce(p_key is null and q.failed_hash = p_request_hash
    and q.last_run_completion > clock_timestamp() - interval '10 minutes', false)
$$;
CREATE TABLE agent.agent_tools (
    organization_id text NOT NULL,
    agent_id text NOT NULL,
    tool_id text NOT NULL,
    attached_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    "position" integer DEFAULT 0 NOT NULL
);
CREATE TABLE agent.agents (
    organization_id text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    agent_type smallint NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    identity_ids text[] DEFAULT '{}'::text[] NOT NULL,
    project_id text,
    template_id text,
    base_template_id text,
    created_by_id text,
    hidden boolean DEFAULT false NOT NULL,
    state smallint DEFAULT 0 NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    request_id text,
    definition bytea NOT NULL,
    creation bytea,
    secrets bytea DEFAULT '\x'::bytea NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    request_hash bytea
);
CREATE TABLE agent.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE agent.conversations (
    organization_id text NOT NULL,
    id text NOT NULL,
    agent_id text NOT NULL,
    summary text,
    definition bytea NOT NULL,
    isolated_block_ids text[] DEFAULT '{}'::text[] NOT NULL,
    isolated_labels text[] DEFAULT '{}'::text[] NOT NULL,
    request_id text,
    state smallint DEFAULT 0 NOT NULL,
    created_by_id text,
    last_updated_by_id text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    request_hash bytea
);
CREATE TABLE agent.run_events (
    organization_id text NOT NULL,
    run_id text NOT NULL,
    seq_id bigint NOT NULL,
    event bytea NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE agent.run_steps (
    organization_id text NOT NULL,
    run_id text NOT NULL,
    step_index integer NOT NULL,
    id text NOT NULL,
    agent_id text NOT NULL,
    fence bigint NOT NULL,
    output bytea,
    model text DEFAULT ''::text NOT NULL,
    provider_type text DEFAULT ''::text NOT NULL,
    context_window integer DEFAULT 0 NOT NULL,
    prompt_tokens integer DEFAULT 0 NOT NULL,
    completion_tokens integer DEFAULT 0 NOT NULL,
    cached_input_tokens integer DEFAULT 0 NOT NULL,
    cache_write_tokens integer DEFAULT 0 NOT NULL,
    reasoning_tokens integer DEFAULT 0 NOT NULL,
    stop_reason smallint DEFAULT 0 NOT NULL,
    status smallint DEFAULT 1 NOT NULL,
    error_type text DEFAULT ''::text NOT NULL,
    started_ns bigint DEFAULT 0 NOT NULL,
    step_ns bigint DEFAULT 0 NOT NULL,
    llm_started_ns bigint DEFAULT 0 NOT NULL,
    llm_ns bigint DEFAULT 0 NOT NULL,
    tool_ns bigint DEFAULT 0 NOT NULL,
    tools_used text[] DEFAULT '{}'::text[] NOT NULL,
    feedback smallint DEFAULT 0 NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    error_message text DEFAULT ''::text NOT NULL,
    warnings text[] DEFAULT '{}'::text[] NOT NULL
);
CREATE TABLE agent.runs (
    organization_id text NOT NULL,
    id text NOT NULL,
    agent_id text NOT NULL,
    conversation_id text NOT NULL,
    idempotency_key text,
    request_hash bytea NOT NULL,
    status smallint NOT NULL,
    stop_reason smallint DEFAULT 0 NOT NULL,
    background boolean DEFAULT false NOT NULL,
    run_type text NOT NULL,
    user_id text NOT NULL,
    scopes text[] NOT NULL,
    request bytea NOT NULL,
    input bytea NOT NULL,
    error text DEFAULT ''::text NOT NULL,
    claims integer DEFAULT 0 NOT NULL,
    cancel_requested boolean DEFAULT false NOT NULL,
    step_count integer DEFAULT 0 NOT NULL,
    prompt_tokens integer DEFAULT 0 NOT NULL,
    completion_tokens integer DEFAULT 0 NOT NULL,
    cached_input_tokens integer DEFAULT 0 NOT NULL,
    cache_write_tokens integer DEFAULT 0 NOT NULL,
    reasoning_tokens integer DEFAULT 0 NOT NULL,
    context_tokens integer DEFAULT 0 NOT NULL,
    ttft_ns bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    answers text[]
)
WITH (fillfactor='80');
ALTER TABLE ONLY agent.agent_tools
    ADD CONSTRAINT agent_tools_pkey PRIMARY KEY (organization_id, agent_id, tool_id);
ALTER TABLE ONLY agent.agents
    ADD CONSTRAINT agents_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY agent.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY agent.conversation_queue
    ADD CONSTRAINT conversation_queue_pkey PRIMARY KEY (organization_id, conversation_id);
ALTER TABLE ONLY agent.conversations
    ADD CONSTRAINT conversations_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY agent.run_events
    ADD CONSTRAINT run_events_pkey PRIMARY KEY (organization_id, run_id, seq_id);
ALTER TABLE ONLY agent.run_steps
    ADD CONSTRAINT run_steps_pkey PRIMARY KEY (organization_id, run_id, step_index);
ALTER TABLE ONLY agent.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (organization_id, id);
CREATE INDEX agents_created_at ON agent.agents USING btree (organization_id, created_at, id);
CREATE UNIQUE INDEX agents_request_id ON agent.agents USING btree (organization_id, request_id) WHERE (request_id IS NOT NULL);
CREATE INDEX agents_tags ON agent.agents USING gin (organization_id, tags);
CREATE INDEX agents_updated_at ON agent.agents USING btree (organization_id, updated_at, id);
CREATE INDEX conversation_queue_agent ON agent.conversation_queue USING btree (organization_id, agent_id);
CREATE INDEX conversation_queue_system_approvals ON agent.conversation_queue USING btree (approval_since) WHERE (approval_since IS NOT NULL);
CREATE INDEX conversation_queue_work ON agent.conversation_queue USING btree (organization_id, lease_until) WHERE ((run_id IS NOT NULL) OR (pending > 0));
CREATE INDEX conversations_agent ON agent.conversations USING btree (organization_id, agent_id, created_at, id);
CREATE UNIQUE INDEX conversations_request_id ON agent.conversations USING btree (organization_id, request_id) WHERE (request_id IS NOT NULL);
CREATE INDEX run_events_system_age ON agent.run_events USING brin (created_at);
CREATE INDEX run_steps_agent ON agent.run_steps USING btree (organization_id, agent_id, created_at, id);
CREATE INDEX run_steps_created_at ON agent.run_steps USING btree (organization_id, created_at, id);
CREATE UNIQUE INDEX run_steps_id ON agent.run_steps USING btree (organization_id, id);
CREATE INDEX runs_agent ON agent.runs USING btree (organization_id, agent_id, created_at, id);
CREATE INDEX runs_created_at ON agent.runs USING btree (organization_id, created_at, id);
CREATE UNIQUE INDEX runs_idempotency_key ON agent.runs USING btree (organization_id, conversation_id, idempotency_key) WHERE (idempotency_key IS NOT NULL);
CREATE INDEX runs_waiting ON agent.runs USING btree (organization_id, conversation_id, created_at, id) WHERE (status = 1);
ALTER TABLE ONLY agent.agent_tools
    ADD CONSTRAINT agent_tools_organization_id_agent_id_fkey FOREIGN KEY (organization_id, agent_id) REFERENCES agent.agents(organization_id, id) ON DELETE CASCADE;
ALTER TABLE ONLY agent.conversations
    ADD CONSTRAINT conversations_organization_id_agent_id_fkey FOREIGN KEY (organization_id, agent_id) REFERENCES agent.agents(organization_id, id) ON DELETE CASCADE;
INSERT INTO agent.alembic_version VALUES ('0006');
