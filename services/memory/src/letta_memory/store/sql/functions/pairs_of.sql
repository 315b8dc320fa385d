-- Each pair of neighbours of Chinese, Japanese and Korean characters in a text, which has no spaces there; null where there are none.
create or replace function memory.pairs_of(p_text text) returns tsvector language sql immutable as $$
  select case when octet_length(p_text) > length(p_text) then to_tsvector('pg_catalog.simple', (
    select string_agg(c.one || c.two, ' ')
    from regexp_matches(p_text, '[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,}', 'g') r (run)
    -- Not by place: to find one in a long text of characters of several bytes, all before it are read.
    cross join lateral (
      select s.one, lead(s.one) over (order by s.n) as two
      from string_to_table(r.run[1], null) with ordinality s (one, n)) c
    where c.two is not null)) end
$$;
