-- Who speaks in a text that begins with a name and a colon, as the number of the name's stem; 0 where nobody is named.
create or replace function memory.speaker_of(p_text text) returns integer language sql stable as $$
  select coalesce((
    select hashtext(u.lexeme)
    from unnest(to_tsvector('pg_catalog.english', substring(p_text from '^([[:alpha:]][[:alnum:]_.-]{0,40}): '))) u limit 1), 0)
$$;
