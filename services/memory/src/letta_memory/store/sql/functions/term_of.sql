-- A lexeme as a query of its own, quoted.
create or replace function memory.term_of(p_lexeme text) returns tsquery language sql immutable as $$
  select ('''' || replace(replace(p_lexeme, '\', '\\'), '''', '''''') || '''')::tsquery
$$;
