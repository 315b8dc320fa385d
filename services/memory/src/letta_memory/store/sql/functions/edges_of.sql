-- The edges of a stem: its first two letters and its last two. A word that is misspelt in one place has at least one of them still.
create or replace function memory.edges_of(p_stem text) returns text[] language sql immutable as $$
  select array[left(p_stem, 2) || '-', '-' || right(p_stem, 2)]
$$;
