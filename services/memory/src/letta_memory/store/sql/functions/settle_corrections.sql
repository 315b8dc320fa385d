-- Notes up to where the messages of a conversation are compared with blocks, and what came of it. False when somebody else has the
-- work now; then nothing is written. p_stated has the blocks and relations that users told of, as `block/relation`: what is open of
-- them and is not proposed anew is outdated, and so is what is open of lines that are gone. p_new has rows of memory.suggestions in JSON.
-- Locks: how far the conversation is, and open suggestions of the agent.
create or replace function memory.settle_corrections(
  p_org text, p_agent text, p_conversation text, p_claim bigint, p_seq bigint, p_stated text[], p_new text
) returns boolean language plpgsql as $$
declare
  fresh memory.suggestions[] := array(select n from json_populate_recordset(null::memory.suggestions, p_new::json) n);
begin
  update memory.search_positions p set reviewed = p_seq, leased_until = '-infinity'
  where p.organization_id = p_org and p.conversation_id = p_conversation and p.claim = p_claim;
  if not found then
    return false;
  end if;
  update memory.suggestions x set state = 4 /* MemorySuggestionState.OUTDATED */, decided_at = now()
  from memory.blocks b
  where x.organization_id = p_org and x.agent_id = p_agent and x.state = 1 /* MemorySuggestionState.OPEN */
    and b.organization_id = p_org and b.id = x.block_id
    and (x.block_id || '/' || x.relation = any(p_stated) or x.line <> all(string_to_array(b.value, E'\n')))
    and x.digest not in (select f.digest from unnest(fresh) f);
  insert into memory.suggestions select f.* from unnest(fresh) f
  where exists (
    -- Locked, so that it is not deleted meanwhile.
    select from memory.blocks b where b.organization_id = p_org and b.id = f.block_id for key share)
  limit (
    select greatest(0, a.most_open - (
      select count(*) from memory.suggestions x
      where x.organization_id = p_org and x.agent_id = p_agent and x.state = 1 /* MemorySuggestionState.OPEN */))
    from memory.agents a where a.organization_id = p_org and a.id = p_agent)
  on conflict do nothing;
  return true;
end $$;
