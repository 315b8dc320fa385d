-- The stems of some scopes that words of a query, which none of their texts has, may stand for, and how like each is, below 1.
--
-- Like is what is one edit apart, and of longer words what has most of its trigrams in common. Words of fewer than four letters and
-- with digits stand for themselves. What bounds it: the eight longest words, four stems for each, the stems of search_spellings with
-- one of the word's edges, and of the texts that came since the newest 2,000. Locks: none.
create or replace function memory.like_words(p_org text, p_scopes integer[], p_words memory.asked_word[])
returns setof memory.like_word language plpgsql stable rows 10 as $$
declare
  w memory.asked_word;
  recent text[];
begin
  for w in
    select * from unnest(p_words) x where memory.is_spelled(x.stem) order by length(x.stem) desc, x.stem limit 8
  loop
    recent := coalesce(recent, array(
      select distinct u.stem from (
        select t.stems from memory.search_scopes s cross join lateral (
          select y.stems from memory.search_texts y
          where y.organization_id = p_org and y.scope = s.scope and y.place > s.spelled_place
          order by y.place desc limit 2000) t
        where s.organization_id = p_org and s.scope = any(p_scopes) limit 2000) r
      cross join lateral unnest(r.stems) u (stem)));
    return query
      with near as materialized (
        select n.stem, extensions.similarity(n.stem, w.stem) as share
        from (
          select u.stem from memory.search_spellings k cross join lateral unnest(k.stems) u (stem)
          where k.organization_id = p_org and k.scope = any(p_scopes) and k.edge = any(memory.edges_of(w.stem))
          union select r.stem from unnest(recent) r (stem) where memory.edges_of(r.stem) && memory.edges_of(w.stem)) n
        where length(n.stem) between length(w.stem) - 2 and length(w.stem) + 2
          -- Of short words too many are one letter apart.
          and (length(w.stem) > 5 or left(n.stem, 1) = left(w.stem, 1))),
      close as (
        select c.stem, case when memory.one_edit_apart(c.stem, w.stem) then 1 else c.share end as share
        from (select * from near n where n.share >= 0.1 order by n.share desc, n.stem limit 16) c),
      best as (
        select c.stem, c.share, max(c.share) over () as most from close c
        where c.share = 1 or (c.share >= 0.45 and length(w.stem) > 5))
      select hashtext(b.stem), coalesce(w.word, w.stem), (0.8 * b.share)::real from best b
      where b.share >= b.most - 0.2 order by b.share desc, b.stem limit 4;
  end loop;
end $$;
