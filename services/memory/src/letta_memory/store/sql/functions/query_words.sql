-- The words that a query asks for, at most 64, longest first: each as it stands in the query, with its stems in the languages of
-- p_languages. A small word of the query's own language is none. Bit 1: texts of former releases, whose stems are English.
create or replace function memory.query_words(p_query text, p_languages integer) returns setof memory.asked_word
language plpgsql stable rows 10 as $$
declare
  said text := memory.folded(p_query);
  own integer := 2;
  read tsvector;
begin
  if p_languages & -4 <> 0 then
    own := memory.language_of(said, p_languages);
  end if;
  read := memory.stems_in(said, own);
  return query
    with own_words as materialized (
      select u.lexeme as stem, u.positions[1] as place from unnest(read) u order by length(u.lexeme) desc, u.lexeme limit 64),
    stems as (
      select o.stem, o.place from own_words o
      union all select u.lexeme, p.place
      from generate_series(1, 8) b (bit) cross join lateral unnest(memory.stems_in(said, 1 << b.bit)) u
      cross join lateral unnest(u.positions) p (place)
      where p_languages & (1 << b.bit) <> 0 and 1 << b.bit <> own and p.place = any(array(select o.place from own_words o))
      union all select u.lexeme, p.place
      from unnest(to_tsvector('pg_catalog.english', translate(said, 'йЙ', 'иИ'))) u cross join lateral unnest(u.positions) p (place)
      where p_languages & 1 <> 0 and p.place = any(array(select o.place from own_words o)))
    select coalesce(min(w.lexeme), s.stem), s.stem from stems s
    left join (
      select x.lexeme, p.place from unnest(to_tsvector('pg_catalog.simple', said)) x
      cross join lateral unnest(x.positions) p (place)) w on w.place = s.place
    group by s.stem;
  return query select c.lexeme, c.lexeme from unnest(memory.pairs_of(said)) c limit 64;
end $$;
