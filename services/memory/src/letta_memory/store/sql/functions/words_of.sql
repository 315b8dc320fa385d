-- The words of a text as search counts them: their stems, and those of its date in UTC, so that a question may name it.
--
-- What is written beyond ASCII is folded: accents and widths go, and runs of Chinese, Japanese and Korean, which have no spaces, also
-- count by each pair of their characters. A text of more different words than Postgres takes together (1 MiB) counts by those that it
-- begins with. Locks: none.
create or replace function memory.words_of(p_text text, p_at timestamptz) returns tsvector language plpgsql stable as $$
declare
  said text := p_text;
  dated text := coalesce(to_char(p_at at time zone 'UTC', ' FMDD FMMonth YYYY'), '');
  pairs text;
begin
  if octet_length(said) <> length(said) then
    said := (
      select string_agg(normalize(regexp_replace(normalize(r.part[1], nfkd), '[\u0300-\u036f]', '', 'g'), nfkc), '' order by r.n)
      -- In parts, at spaces: Postgres sorts marks that stand together by exchanging neighbours, and nothing cancels that.
      from regexp_matches(said, '.{0,100}\s|\S{1,100}', 'g') with ordinality r (part, n));
  end if;
  loop
    begin
      if octet_length(said) <> length(said) then
        pairs := (
          select string_agg(c.one || c.two, ' ')
          from regexp_matches(said, '[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,}', 'g') r (run)
          -- Not by place: to find one in a long text of characters of several bytes, all before it are read.
          cross join lateral (
            select s.one, lead(s.one) over (order by s.n) as two
            from string_to_table(r.run[1], null) with ordinality s (one, n)) c
          where c.two is not null);
      end if;
      if pairs is null then
        return to_tsvector('pg_catalog.english', said || dated);
      end if;
      return to_tsvector('pg_catalog.english', said || dated) || to_tsvector('pg_catalog.simple', pairs);
    exception when program_limit_exceeded then
      said := left(said, length(said) * 3 / 4);
    end;
  end loop;
end $$;
