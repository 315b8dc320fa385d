-- Writes passages as releases before `write_passages_once` do: without a digest of the request. Locks: the archive.
create or replace function memory.write_passages(
  p_org text, p_user text, p_agent text, p_archive text, p_new_archive text, p_now timestamptz, p_embedder text,
  p_ids text[], p_texts text[], p_metadata text[], p_tags text[], p_times timestamptz[], p_vectors extensions.halfvec[]
) returns setof memory.passage_row language plpgsql as $$
begin
  return query select * from memory.write_passages_once(p_org, p_user, p_agent, p_archive, p_new_archive, p_now, p_embedder,
    p_ids, p_texts, p_metadata, p_tags, p_times, p_vectors, null);
end $$;
