-- The words that a query asks for, at most 64, longest first: each as it stands in the query, and its stem.
create or replace function memory.asked_words(p_query text) returns setof memory.asked_word language sql stable rows 10 as $$
  select w.lexeme, s.stem
  from (
    select u.lexeme as stem, u.positions[1] as place from unnest(memory.words_of(p_query, null)) u
    order by length(u.lexeme) desc, u.lexeme limit 64) s
  left join (
    select min(x.lexeme) as lexeme, p.place
    from unnest(to_tsvector('pg_catalog.simple', p_query)) x cross join lateral unnest(x.positions) p (place) group by 2) w
  on w.place = s.place
$$;
