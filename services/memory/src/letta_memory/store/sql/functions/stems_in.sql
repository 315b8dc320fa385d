-- The stems of a folded text in a language, as memory.language_of has it; small words of the language are none, however they were folded.
create or replace function memory.stems_in(p_text text, p_language integer) returns tsvector language sql immutable as $$
  select case p_language
    when 4 then ts_delete(to_tsvector('pg_catalog.german', p_text), '{fur,konn,konnt,uber,wahrend,wurd}')
    when 8 then ts_delete(to_tsvector('pg_catalog.french', p_text), '{cet,etaient,etais,etait,etant,le,mem}')
    when 16 then ts_delete(to_tsvector('pg_catalog.spanish', p_text), '{estan,mas,tambi}')
    when 32 then ts_delete(to_tsvector('pg_catalog.portuguese', p_text), '{ate,ja,nao,sao,tamb,voc}')
    when 64 then ts_delete(to_tsvector('pg_catalog.italian', p_text), '{gia,perc,piu}')
    when 128 then to_tsvector('pg_catalog.dutch', p_text)
    when 256 then to_tsvector('pg_catalog.russian', p_text)
    else to_tsvector('pg_catalog.english', p_text) end
$$;
