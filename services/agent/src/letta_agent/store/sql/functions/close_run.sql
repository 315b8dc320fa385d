-- Ends a run: frees the conversation, stores the run's steps (arrays by column, one element a step) and its sums.
--
-- A failed step takes over what its run failed with (p_error). p_tools are tools that were used, p_tool_steps the steps of each.
-- p_approval_* is what waits for approval from now on, unless p_keeps_approval leaves what waited. p_keeps_input: the run failed
-- and its input stays, for the same request to go on with.
-- Sums of a run that is ended a second time do not fall. Answers how many runs wait for the conversation, or -1 when
-- the run lost it to a higher fence. Not durable: what it writes can be derived from memory's last commit.
-- Locks: the conversation's row of the queue, the run's row.
create or replace function agent.close_run(
  p_organization_id text, p_agent_id text, p_conversation_id text, p_run_id text, p_fence bigint, p_status smallint,
  p_stop_reason smallint, p_error text, p_context_tokens integer, p_ttft_ns bigint,
  p_approval_message_id text, p_approval_call_ids text[], p_approval_message bytea, p_keeps_approval boolean,
  p_keeps_input boolean,
  p_index integer[], p_id text[], p_model text[], p_provider text[], p_window integer[], p_prompt integer[],
  p_completion integer[], p_cached integer[], p_written integer[], p_reasoning integer[], p_stop smallint[],
  p_step_status smallint[], p_started bigint[], p_step_ns bigint[], p_llm_started bigint[], p_llm_ns bigint[],
  p_tool_ns bigint[], p_tool_steps integer[], p_tools text[]
) returns integer language plpgsql as $$
declare
  v_started timestamptz;
  v_hash bytea;
  v_now timestamptz := clock_timestamp();
  v_pending integer;
  v_tools text[] := '{}';
  v_failure json;
  v_prompt bigint := 0;
  v_completion bigint := 0;
  v_cached bigint := 0;
  v_written bigint := 0;
  v_reasoning bigint := 0;
begin
  -- Waiting for the disk would cost each run a flush for what a take-over can derive again.
  perform set_config('synchronous_commit', 'off', true);
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
    -- Only the owner ends a run: one that was paused has a lower fence and changes nothing.
    and q.fence = p_fence
  returning q.pending into v_pending;
  if not found then
    return -1;
  end if;
  for i in 1 .. cardinality(p_index) loop
    v_prompt := v_prompt + p_prompt[i];
    v_completion := v_completion + p_completion[i];
    v_cached := v_cached + p_cached[i];
    v_written := v_written + p_written[i];
    v_reasoning := v_reasoning + p_reasoning[i];
    if cardinality(p_tools) > 0 then
      v_tools := array(select t.name from unnest(p_tool_steps, p_tools) with ordinality t(step, name, place)
        where t.step = p_index[i] order by t.place);
    end if;
    v_failure := case p_step_status[i] when 3 /* StepStatus.FAILED */ then nullif(p_error, '')::json end;
    insert into agent.run_steps as s (organization_id, run_id, step_index, id, agent_id, fence, model, provider_type,
      context_window, prompt_tokens, completion_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
      stop_reason, status, started_ns, step_ns, llm_started_ns, llm_ns, tool_ns, tools_used,
      error_type, error_message)
    values (p_organization_id, p_run_id, p_index[i], p_id[i], p_agent_id, p_fence, p_model[i], p_provider[i],
      p_window[i], p_prompt[i], p_completion[i], p_cached[i], p_written[i], p_reasoning[i],
      p_stop[i], p_step_status[i], p_started[i], p_step_ns[i], p_llm_started[i], p_llm_ns[i], p_tool_ns[i], v_tools,
      coalesce(v_failure->>'error_type', ''), coalesce(v_failure->>'message', ''))
    on conflict (organization_id, run_id, step_index) do update
    set model = excluded.model, provider_type = excluded.provider_type, context_window = excluded.context_window,
        prompt_tokens = excluded.prompt_tokens, completion_tokens = excluded.completion_tokens,
        cached_input_tokens = excluded.cached_input_tokens, cache_write_tokens = excluded.cache_write_tokens,
        reasoning_tokens = excluded.reasoning_tokens, stop_reason = excluded.stop_reason, status = excluded.status,
        started_ns = excluded.started_ns, step_ns = excluded.step_ns, llm_started_ns = excluded.llm_started_ns,
        -- The checkpoint goes: nobody replays a step of a run that has ended.
        llm_ns = excluded.llm_ns, tool_ns = excluded.tool_ns, tools_used = excluded.tools_used, output = null,
        error_type = excluded.error_type, error_message = excluded.error_message;
  end loop;
  update agent.runs r
  set status = p_status, stop_reason = p_stop_reason, error = p_error, completed_at = v_now,
      -- A second owner knows only the steps that it found or made, so the larger sums are the truer ones.
      context_tokens = p_context_tokens, ttft_ns = greatest(r.ttft_ns, p_ttft_ns),
      step_count = greatest(r.step_count, cardinality(p_index)),
      prompt_tokens = greatest(r.prompt_tokens, v_prompt),
      completion_tokens = greatest(r.completion_tokens, v_completion),
      cached_input_tokens = greatest(r.cached_input_tokens, v_cached),
      cache_write_tokens = greatest(r.cache_write_tokens, v_written),
      reasoning_tokens = greatest(r.reasoning_tokens, v_reasoning)
  where r.organization_id = p_organization_id and r.id = p_run_id;
  return v_pending;
end $$;
