-- Whether a stem is a word of letters that may be misspelt: no number, no address, and none of a script without spaces.
create or replace function memory.is_spelled(p_stem text) returns boolean language sql immutable as $$
  select p_stem ~ '^[a-z\u00df-\u1fff]{4,40}$'
$$;
