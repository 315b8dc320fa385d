-- Writes what search keeps of a text: its row, and a posting for each of its words. Answers with the number of its words. Of a text
-- that is there, what its words say is written anew; its postings are gone by then, and its vector may be written by another meanwhile.
-- Locks: none; the caller holds the row of the scope, and counts the text there.
create or replace function memory.write_text(t memory.search_texts, p_text text) returns integer language plpgsql as $$
declare
  uses integer[];
  said record;
begin
  select w.words, w.language into said from memory.text_words(p_text, t.created_at) w;
  -- Grouped, since two words of a long text may have one number.
  select coalesce(array_agg(g.term), '{}'), array_agg(g.uses), coalesce(least(sum(g.uses), 32767), 0),
    coalesce(array_agg(g.stem) filter (where memory.is_spelled(g.stem)), '{}')
  into t.terms, uses, t.words, t.stems
  from (
    select hashtext(u.lexeme) as term, sum(cardinality(u.positions))::integer as uses, min(u.lexeme) as stem
    from unnest(said.words) u group by 1) g;
  if strpos(left(p_text, 43), ': ') > 0 then
    t.speaker := memory.speaker_of(p_text);
  end if;
  if said.language <> 2 then
    update memory.search_scopes s set languages = s.languages | said.language
    where s.organization_id = t.organization_id and s.scope = t.scope and s.languages & said.language = 0;
  end if;
  insert into memory.search_texts as x values (t.*) on conflict (organization_id, scope, place) do update
  set terms = excluded.terms, words = excluded.words, stems = excluded.stems, speaker = excluded.speaker, posted = excluded.posted;
  insert into memory.search_postings (organization_id, scope, term, place, uses, words)
  select t.organization_id, t.scope, u.term, t.place, least(u.uses, 32767), t.words from unnest(t.terms, uses) u (term, uses);
  return t.words;
end $$;
