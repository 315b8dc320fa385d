-- The words of a text as search counts them: their stems, and those of its date in UTC, so that a question may name it.
--
-- What is written beyond ASCII is folded: accents and widths go, and runs of Chinese, Japanese and Korean, which have no spaces, also
-- count by each pair of their characters. Locks: none.
create or replace function memory.words_of(p_text text, p_at timestamptz) returns tsvector language plpgsql stable as $$
declare
  said text := p_text;
  pairs text;
begin
  if octet_length(said) <> length(said) then
    said := normalize(regexp_replace(normalize(said, nfkd), '[\u0300-\u036f]', '', 'g'), nfkc);
    pairs := (
      select string_agg(substr(r.run[1], o, 2), ' ')
      from regexp_matches(said, '[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,}', 'g') r (run)
      cross join lateral generate_series(1, length(r.run[1]) - 1) o);
  end if;
  said := said || coalesce(to_char(p_at at time zone 'UTC', ' FMDD FMMonth YYYY'), '');
  if pairs is null then
    return to_tsvector('pg_catalog.english', said);
  end if;
  return to_tsvector('pg_catalog.english', said) || to_tsvector('pg_catalog.simple', pairs);
end $$;
