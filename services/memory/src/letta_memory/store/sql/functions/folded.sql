-- A text as search reads it: accents and widths go. The short i of Cyrillic keeps its mark, as endings have it.
create or replace function memory.folded(p_text text) returns text language plpgsql immutable as $$
begin
  if octet_length(p_text) = length(p_text) then
    return p_text;
  end if;
  return (
    select string_agg(
      normalize(regexp_replace(normalize(r.part[1], nfkd), '(?<![иИ])\u0306|[\u0300-\u0305\u0307-\u036f]', '', 'g'), nfkc), ''
      order by r.n)
    -- In parts, at spaces: Postgres sorts marks that stand together by exchanging neighbours, and nothing cancels that.
    from regexp_matches(p_text, '.{0,100}\s|\S{1,100}', 'g') with ordinality r (part, n));
end $$;
