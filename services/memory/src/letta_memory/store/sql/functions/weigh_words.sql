-- What each of some words counts in a search of some scopes, by how few of their p_texts texts have it, and which none has.
--
-- Of p_counted scopes it is known in how many texts words are, and the rarest count until 8,000 postings are read; otherwise it is
-- counted here. Locks: none.
create or replace function memory.weigh_words(
  p_org text, p_scopes integer[], p_terms integer[], p_new memory.new_posting[], p_texts bigint, p_counted boolean,
  out terms integer[], out weights real[], out missing integer[]
) language plpgsql stable as $$
declare
  half constant float8 := 0.5;
  counts bigint[];
  unknown integer[];
begin
  if p_texts <= 1000 or not p_counted then
    select array_agg(z.term), array_agg(ln(1 + (greatest(p_texts - z.n, 0) + half) / (z.n + half))::real) into terms, weights
    from (
      select x.term, count(*) as n from (
        select p.term from memory.search_postings p
        where p.organization_id = p_org and p.scope = any(p_scopes) and p.term = any(p_terms)
        union all select e.term from unnest(p_new) e) x group by 1) z;
    if coalesce(cardinality(terms), 0) < cardinality(p_terms) then
      missing := array(select unnest(p_terms) except select unnest(terms));
    end if;
    return;
  end if;
  select array_agg(y.term), array_agg(y.n), array_agg(y.term) filter (where y.n = 0) into terms, counts, unknown
  from (
    select t.term, coalesce(sum(x.texts), 0)::bigint as n
    from unnest(p_terms) t (term) left join (
      select c.term, c.texts from memory.search_terms c
      where c.organization_id = p_org and c.scope = any(p_scopes) and c.term = any(p_terms)) x on x.term = t.term
    group by 1) y;
  if unknown is not null then
    missing := array(
      select unnest(unknown) except (
        select p.term from memory.search_postings p
        where p.organization_id = p_org and p.scope = any(p_scopes) and p.term = any(unknown)
        union all select e.term from unnest(p_new) e));
  end if;
  select array_agg(z.term), array_agg(ln(1 + (greatest(p_texts - z.n, 0) + half) / (z.n + half))::real) into terms, weights
  from (
    select y.term, y.n, sum(y.n) over (order by y.n, y.term) - y.n as before
    from (select u.term, greatest(u.n, 1) as n from unnest(terms, counts) u (term, n)) y) z
  -- The rarest words decide; of words that nearly all texts have, postings would be read for nothing.
  where z.before + z.n <= 8000 or z.before = 0;
end $$;
