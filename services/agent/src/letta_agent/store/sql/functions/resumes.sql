-- Says whether a request goes on with the input of the run before it: it has no key, equals the one that failed last, and comes
-- soon after. Clients send again by themselves what failed. Not a function of SQL, which would be planned anew at each call.
create or replace function agent.resumes(q agent.conversation_queue, p_key text, p_request_hash bytea) returns boolean
language plpgsql stable as $$
begin
  -- 10 minutes are longer than clients usually go on trying, and soon enough that nobody means a new message.
  return coalesce(p_key is null and q.failed_hash = p_request_hash
    and q.last_run_completion > clock_timestamp() - interval '10 minutes', false);
end $$;
