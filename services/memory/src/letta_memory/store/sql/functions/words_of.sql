-- The words of a text as search counts them: their stems, and those of its date in UTC, so that a question may name it.
create or replace function memory.words_of(p_text text, p_at timestamptz) returns tsvector language sql stable as $$
  select to_tsvector('pg_catalog.english', p_text || coalesce(to_char(p_at at time zone 'UTC', ' FMDD FMMonth YYYY'), ''))
$$;
