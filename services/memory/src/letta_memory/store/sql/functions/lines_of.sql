-- Numbers of the lines, from 1, in which p_part begins.
create or replace function memory.lines_of(p_text text, p_part text) returns text[] language plpgsql immutable as $$
declare
  found_lines text[] := '{}';
  place integer := 0;
  step integer := strpos(p_text, p_part);
begin
  while step > 0 and cardinality(found_lines) < 100 loop
    place := place + step;
    found_lines := found_lines || cardinality(string_to_array(left(p_text, place - 1) || 'x', E'\n'))::text;
    place := place + length(p_part) - 1;
    step := strpos(substr(p_text, place + 1), p_part);
  end loop;
  return found_lines;
end $$;
