-- The words of a text as search counts them: its language, their stems in it, and those of its date in UTC, so that a question may
-- name it. A text of more different words than Postgres takes together (1 MiB) counts by those that it begins with. Locks: none.
create or replace function memory.text_words(p_text text, p_at timestamptz, out words tsvector, out language integer)
language plpgsql stable as $$
declare
  said text := memory.folded(p_text);
  dated text := coalesce(to_char(p_at at time zone 'UTC', ' FMDD FMMonth YYYY'), '');
begin
  language := memory.language_of(said, -1);
  loop
    begin
      words := memory.stems_in(said || dated, language);
      if octet_length(said) > length(said) then
        words := words || coalesce(memory.pairs_of(said), '');
      end if;
      return;
    exception when program_limit_exceeded then
      said := left(said, length(said) * 3 / 4);
    end;
  end loop;
end $$;
