-- The number of an embedder and the dimension of its vectors: vectors of equal numbers can be compared. 0 without a vector.
create or replace function memory.model_of(p_embedder text, p_vector extensions.halfvec) returns integer
language sql immutable as $$
  select coalesce(hashtext(p_embedder || ' ' || extensions.vector_dims(p_vector)), 0)
$$;
