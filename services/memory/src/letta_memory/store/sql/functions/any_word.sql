-- The words of a text as a query that any one of them satisfies.
create or replace function memory.any_word(p_text text) returns tsquery language sql immutable as $$
  select replace(plainto_tsquery('pg_catalog.english', p_text)::text, ' & ', ' | ')::tsquery
$$;
