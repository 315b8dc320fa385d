-- Admits a run to a conversation: claims the conversation when it is free, or queues the run.
--
-- Input: p_key is the idempotency key (null: none), p_request_hash what the key stands for, p_most_waiting how many runs may
-- wait when the conversation is taken (0: this one does not), p_approved the tool calls that the run answers, or the message
-- that made them (null: it answers none), p_answers the same with the answers, p_denies whether calls that wait do not matter.
-- outcome: 'claimed' (fence is set; approval_* is what waits; resumes: the run goes on with the input of the last one),
-- 'queued', 'busy' or 'full' (run_id is the run in the way), 'known' (run_id and request_hash of the run with this key),
-- 'answered' (run_id of the run that answered the same), 'pending' (approvals are waited for), 'not_pending' (these are not),
-- 'no_agent', 'no_conversation'. What waits for approval stays with the conversation until the run is closed.
-- Locks: the conversation's row of the queue.
create or replace function agent.admit_run(
  p_organization_id text, p_agent_id text, p_conversation_id text, p_run_id text, p_key text, p_request_hash bytea,
  p_user_id text, p_scopes text[], p_request bytea, p_input bytea, p_background boolean, p_run_type text,
  p_most_waiting integer, p_approved text[], p_answers text[], p_denies boolean, p_owner text, p_lease_ms integer,
  out outcome text, out run_id text, out fence bigint, out request_hash bytea, out definition bytea,
  out conversation bytea, out secrets bytea, out tool_ids text[], out context_tokens integer,
  out approval_message_id text, out approval_call_ids text[], out approval_message bytea, out resumes boolean
) language plpgsql as $$
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
  -- The definition comes with the claim, so that a run asks for nothing more before it begins.
  select a.definition, a.secrets, array(
      select t.tool_id from agent.agent_tools t
      where t.organization_id = a.organization_id and t.agent_id = a.id order by t.position, t.tool_id)
    into definition, secrets, tool_ids
    from agent.agents a
    where a.organization_id = p_organization_id and a.id = p_agent_id and a.state = 1 /* Stage.READY */;
  if not found then
    outcome := 'no_agent';
    return;
  end if;
  -- The default conversation has the agent's id and no row of its own.
  if p_conversation_id <> p_agent_id then
    select c.definition into conversation from agent.conversations c
    where c.organization_id = p_organization_id and c.id = p_conversation_id and c.agent_id = p_agent_id
      and c.state = 1 /* Stage.READY */;
    if not found then
      outcome := 'no_conversation';
      return;
    end if;
  end if;
  update agent.conversation_queue q
  set run_id = p_run_id, owner = p_owner, fence = q.fence + 1, lease_until = v_until, last_message_at = clock_timestamp()
  -- A free row is claimed by the same update that sees it free, so that of two runs at once one waits here.
  where q.organization_id = p_organization_id and q.conversation_id = p_conversation_id and q.run_id is null
    and case
      when q.approval_message_id is null
        -- Runs that wait come first: a new one does not overtake them even when the row is free.
        then q.pending = 0 and (p_approved is null or agent.resumes(q, p_key, p_request_hash))
      when p_approved is null then q.pending = 0 and p_denies
      else p_approved && (q.approval_call_ids || q.approval_message_id) end
  returning q.* into v_queue;
  if not found and p_approved is null then
    insert into agent.conversation_queue as q
      (organization_id, conversation_id, agent_id, run_id, owner, fence, lease_until, last_message_at)
    values (p_organization_id, p_conversation_id, p_agent_id, p_run_id, p_owner, 1, v_until, clock_timestamp())
    -- The first message of a conversation makes its row; of two first ones the other finds it taken below.
    on conflict (organization_id, conversation_id) do nothing
    returning q.* into v_queue;
  end if;
  if not found then
    if p_key is not null then
      select r.id, r.request_hash into run_id, request_hash from agent.runs r
      where r.organization_id = p_organization_id and r.conversation_id = p_conversation_id
        and r.idempotency_key = p_key;
      if found then
        outcome := 'known';
        return;
      end if;
    end if;
    -- From here on nobody may free the row: a run that is counted in pending must be found by its owner.
    select q.* into v_queue from agent.conversation_queue q
    where q.organization_id = p_organization_id and q.conversation_id = p_conversation_id for update;
    if not found then
      outcome := 'not_pending';
      return;
    end if;
    context_tokens := v_queue.context_tokens;
    if p_answers is not null then
      select r.id, r.request_hash into run_id, request_hash from agent.runs r
      where r.organization_id = p_organization_id and r.agent_id = p_agent_id and r.conversation_id = p_conversation_id
        and r.answers = p_answers
      -- The newest, since the same answer may have been given to an earlier request for approval.
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
      -- 0: the caller does not want to wait, so nothing is full, the conversation is only taken.
      outcome := case p_most_waiting when 0 then 'busy' else 'full' end;
      return;
    end if;
    update agent.conversation_queue q set pending = q.pending + 1
    where q.organization_id = p_organization_id and q.conversation_id = p_conversation_id;
    outcome := 'queued';
  else
    outcome := 'claimed';
    fence := v_queue.fence;
    context_tokens := v_queue.context_tokens;
    resumes := agent.resumes(v_queue, p_key, p_request_hash);
    if not resumes then
      approval_message_id := v_queue.approval_message_id;
      approval_call_ids := v_queue.approval_call_ids;
      approval_message := v_queue.approval_message;
    end if;
  end if;
  insert into agent.runs (organization_id, id, agent_id, conversation_id, idempotency_key, request_hash, status,
    background, run_type, user_id, scopes, request, input, answers, started_at, queued)
  values (p_organization_id, p_run_id, p_agent_id, p_conversation_id, p_key, p_request_hash,
    case outcome when 'claimed' then 2 /* RunStatus.RUNNING */ else 1 /* RunStatus.CREATED */ end, 
    p_background, p_run_type, p_user_id, p_scopes, p_request, case when resumes then '' else p_input end, p_answers,
    case outcome when 'claimed' then clock_timestamp() end, outcome = 'queued');
  run_id := p_run_id;
end $$;
