-- Begins the execution of a tool call under a key, or tells of the one before it.
--
-- begun: the caller runs it now. Otherwise call_hash is what the key stands for, result what came of it, is_running whether
-- somebody runs it. With p_again a call whose runner is gone is begun again. Locks: the row of the key.
create or replace function tools.begin_execution(
  p_organization_id text, p_key text, p_hash text, p_tool_id text, p_agent_id text,
  p_lease interval, p_again boolean
) returns table (begun boolean, call_hash text, result bytea, is_running boolean)
language plpgsql as $$
begin
  insert into tools.executions as e
    (organization_id, idempotency_key, call_hash, tool_id, agent_id, lease_until)
  values (p_organization_id, p_key, p_hash, p_tool_id, p_agent_id, now() + p_lease)
  on conflict (organization_id, idempotency_key) do update
    set attempt = e.attempt + 1, lease_until = excluded.lease_until
    where p_again and e.finished_at is null and e.lease_until <= now() and e.call_hash = excluded.call_hash;
  if found then
    return query select true, p_hash, null::bytea, false;
    return;
  end if;
  return query
    select false, e.call_hash, e.result, e.finished_at is null and e.lease_until > now()
    from tools.executions e
    where e.organization_id = p_organization_id and e.idempotency_key = p_key;
end $$;
