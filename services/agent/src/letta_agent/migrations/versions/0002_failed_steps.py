"""Why steps failed; and nobody claims the runs of agents and conversations that are being removed."""

from alembic import op

revision = "0002"
down_revision = "0001"

ERRORS = """
alter table agent.run_steps add column error_message text not null default '';
"""

# A step that failed takes over what its run failed with, so that the statement needs no further parameters.
CLOSE = r"""
create or replace function agent.close_run(
  p_organization_id text, p_agent_id text, p_conversation_id text, p_run_id text, p_fence bigint, p_status smallint,
  p_stop_reason smallint, p_error text, p_context_tokens integer, p_ttft_ns bigint,
  p_approval_message_id text, p_approval_call_ids text[], p_approval_message bytea,
  p_index integer[], p_id text[], p_model text[], p_provider text[], p_window integer[], p_prompt integer[],
  p_completion integer[], p_cached integer[], p_written integer[], p_reasoning integer[], p_stop smallint[],
  p_step_status smallint[], p_started bigint[], p_step_ns bigint[], p_llm_started bigint[], p_llm_ns bigint[],
  p_tool_ns bigint[], p_tools text[]
) returns integer language plpgsql as $$
declare
  v_started timestamptz;
  v_now timestamptz := clock_timestamp();
  v_pending integer;
begin
  perform set_config('synchronous_commit', 'off', true);
  select r.created_at into v_started from agent.runs r
  where r.organization_id = p_organization_id and r.id = p_run_id;
  update agent.conversation_queue q
  set run_id = null, owner = null, lease_until = null, last_run_completion = v_now,
      last_run_duration_ms = extract(epoch from v_now - v_started) * 1000, last_stop_reason = p_stop_reason,
      context_tokens = p_context_tokens, approval_message_id = p_approval_message_id,
      approval_call_ids = p_approval_call_ids, approval_message = p_approval_message
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
    u.tool_ns, string_to_array(u.tools, ','),
    case u.status when 3 then coalesce(nullif(p_error, '')::json->>'error_type', '') else '' end,
    case u.status when 3 then coalesce(nullif(p_error, '')::json->>'message', '') else '' end
  from unnest(p_index, p_id, p_model, p_provider, p_window, p_prompt, p_completion, p_cached, p_written, p_reasoning,
    p_stop, p_step_status, p_started, p_step_ns, p_llm_started, p_llm_ns, p_tool_ns, p_tools)
    as u(i, id, model, provider, win, prompt, completion, cached, written, reasoning, stop, status, started, step_ns,
      llm_started, llm_ns, tool_ns, tools)
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
      context_tokens = p_context_tokens, ttft_ns = p_ttft_ns, step_count = cardinality(p_index),
      prompt_tokens = (select coalesce(sum(x), 0) from unnest(p_prompt) x),
      completion_tokens = (select coalesce(sum(x), 0) from unnest(p_completion) x),
      cached_input_tokens = (select coalesce(sum(x), 0) from unnest(p_cached) x),
      cache_write_tokens = (select coalesce(sum(x), 0) from unnest(p_written) x),
      reasoning_tokens = (select coalesce(sum(x), 0) from unnest(p_reasoning) x)
  where r.organization_id = p_organization_id and r.id = p_run_id;
  return v_pending;
end $$;
"""

CLAIM = r"""
create or replace function agent.claim_due_runs(p_owner text, p_lease_ms integer, p_limit integer)
returns table (
  organization_id text, agent_id text, conversation_id text, run_id text, fence bigint, user_id text, scopes text[],
  definition bytea, conversation bytea, secrets bytea, tool_ids text[], context_tokens integer, request bytea,
  input bytea, claims integer, background boolean, run_type text, cancel_requested boolean
) language plpgsql as $$
#variable_conflict use_column
begin
  return query
  with due as (
    select q.organization_id, q.conversation_id, q.run_id is null as fresh, coalesce(q.run_id, (
        select w.id from agent.runs w
        where w.organization_id = q.organization_id and w.conversation_id = q.conversation_id and w.status = 1
        order by w.created_at, w.id limit 1)) as run_id
    from agent.conversation_queue q
    where (q.run_id is not null or q.pending > 0) and (q.lease_until is null or q.lease_until < clock_timestamp())
      and exists (
        select from agent.agents a
        where a.organization_id = q.organization_id and a.id = q.agent_id and a.state = 1)
      and (q.conversation_id = q.agent_id or exists (
        select from agent.conversations v
        where v.organization_id = q.organization_id and v.id = q.conversation_id and v.state = 1))
    order by q.lease_until nulls first
    limit p_limit
    for update skip locked
  ), claimed as (
    update agent.conversation_queue q
    set owner = case when due.run_id is null then null else p_owner end,
        fence = q.fence + 1,
        lease_until = case when due.run_id is null then null
                           else clock_timestamp() + p_lease_ms * interval '1 millisecond' end,
        run_id = due.run_id,
        pending = case when due.run_id is null then 0 when due.fresh then greatest(q.pending - 1, 0) else q.pending end
    from due
    where q.organization_id = due.organization_id and q.conversation_id = due.conversation_id
    returning q.organization_id, q.conversation_id, q.run_id, q.fence, q.context_tokens
  ), begun as (
    update agent.runs r
    set status = 2, claims = r.claims + case when r.status = 2 then 1 else 0 end,
        started_at = coalesce(r.started_at, clock_timestamp())
    from claimed c
    where r.organization_id = c.organization_id and r.id = c.run_id
    returning r.*
  )
  select b.organization_id, b.agent_id, b.conversation_id, b.id, c.fence, b.user_id, b.scopes, a.definition,
    v.definition, a.secrets, array(select t.tool_id from agent.agent_tools t
      where t.organization_id = b.organization_id and t.agent_id = b.agent_id order by t.position, t.tool_id),
    c.context_tokens, b.request, b.input, b.claims, b.background, b.run_type, b.cancel_requested
  from begun b
  join claimed c on c.organization_id = b.organization_id and c.run_id = b.id
  join agent.agents a on a.organization_id = b.organization_id and a.id = b.agent_id
  left join agent.conversations v on v.organization_id = b.organization_id and v.id = b.conversation_id;
end $$;
"""


def upgrade() -> None:
    for statement in (ERRORS, CLOSE, CLAIM):
        op.get_bind().exec_driver_sql(statement)
