-- Counts bytes that an organization is about to store, or a negative number of them that it no longer does. False, and nothing
-- is counted, when it would have more than p_most (0: any number). Locks: the organization's count, until the transaction ends.
create or replace function memory.count_stored(p_org text, p_bytes bigint, p_most bigint) returns boolean language plpgsql as $$
begin
  insert into memory.stored_files as s (organization_id, size_bytes)
  select p_org, p_bytes where p_most = 0 or p_bytes <= p_most
  on conflict (organization_id) do update set size_bytes = s.size_bytes + excluded.size_bytes
  where p_most = 0 or p_bytes <= 0 or s.size_bytes + p_bytes <= p_most;
  return found;
end $$;
