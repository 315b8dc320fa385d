-- Whether one letter too many, too few or another one, or two that changed places, is all that two different words differ in.
create or replace function memory.one_edit_apart(p_one text, p_other text) returns boolean language plpgsql immutable as $$
declare
  most integer := least(length(p_one), length(p_other));
  before integer := 0;
  after integer := 0;
  one integer;
  other integer;
begin
  if abs(length(p_one) - length(p_other)) > 1 then
    return false;
  end if;
  while before < most and substr(p_one, before + 1, 1) = substr(p_other, before + 1, 1) loop
    before := before + 1;
  end loop;
  while after < most - before and left(right(p_one, after + 1), 1) = left(right(p_other, after + 1), 1) loop
    after := after + 1;
  end loop;
  one := length(p_one) - before - after;
  other := length(p_other) - before - after;
  return (one <= 1 and other <= 1)
    or (one = 2 and other = 2 and substr(p_one, before + 1, 2) = reverse(substr(p_other, before + 1, 2)));
end $$;
