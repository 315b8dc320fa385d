-- Whether a stem is a word of letters that may be misspelt: no number, no address, and none of a script without spaces.
create or replace function memory.is_spelled(p_stem text) returns boolean language sql immutable as $$
  -- What may not be in it: to look for one such character costs a quarter of matching all.
  select length(p_stem) between 4 and 40 and p_stem !~ '[^a-z\u00df-\u1fff]'
$$;
