-- The language of a folded text among those of p_among, as a bit: 2 English, 4 German, 8 French, 16 Spanish, 32 Portuguese,
-- 64 Italian, 128 Dutch, 256 Russian.
--
-- Where half of its letters are Cyrillic it is Russian. Otherwise it is the language that most of its small words are of, by the lists
-- below, whose letters are the bits in order from e; English where others have not more. What is taken for another language
-- is found all the same by its words as they stand, since a query is read in each language of a scope. Locks: none.
create or replace function memory.language_of(p_text text, p_among integer) returns integer language plpgsql immutable as $$
declare
  sample text := lower(left(p_text, 600));
  small constant jsonb := jsonb '{
    "aan": "d", "aber": "g", "about": "e", "al": "si", "alla": "i", "anche": "i", "and": "e", "are": "e", "at": "e",
    "au": "f", "auch": "g", "auf": "g", "aus": "g", "aux": "f", "avec": "f", "be": "e", "been": "e", "bei": "g", "bij": "d",
    "by": "e", "ce": "f", "cette": "f", "che": "i", "com": "p", "come": "i", "como": "s", "con": "si", "cuando": "s",
    "da": "p", "dal": "i", "dans": "f", "das": "gp", "dass": "g", "dat": "d", "de": "d", "dei": "i", "del": "si",
    "della": "i", "dem": "g", "den": "g", "der": "g", "des": "gf", "deze": "d", "di": "i", "dit": "d", "donde": "s",
    "dos": "p", "dove": "i", "du": "f", "e": "pi", "een": "d", "ein": "g", "eine": "g", "einem": "g", "einen": "g",
    "einer": "g", "el": "s", "ela": "p", "ele": "p", "ella": "s", "elle": "f", "em": "p", "en": "d", "er": "gd", "es": "gs",
    "est": "f", "esta": "s", "este": "s", "et": "f", "eu": "p", "foi": "p", "for": "e", "from": "e", "fue": "s", "gli": "i",
    "ha": "i", "habe": "g", "had": "e", "has": "e", "hat": "g", "have": "e", "hay": "s", "heeft": "d", "her": "e",
    "het": "d", "hij": "d", "his": "e", "ho": "i", "how": "e", "i": "e", "ich": "g", "ik": "d", "il": "fi", "im": "g",
    "io": "i", "is": "e", "isso": "p", "ist": "g", "it": "e", "je": "fd", "las": "s", "le": "fi", "les": "f", "leur": "f",
    "lo": "i", "los": "s", "ma": "fi", "maar": "d", "mais": "fp", "mas": "p", "mein": "g", "meine": "g", "met": "d",
    "meu": "p", "mi": "si", "minha": "p", "mit": "g", "mon": "f", "muito": "p", "muy": "s", "my": "e", "na": "p",
    "naar": "d", "nach": "g", "ne": "f", "nel": "i", "nella": "i", "nicht": "g", "niet": "d", "noch": "g", "nog": "d",
    "non": "i", "not": "e", "nous": "f", "oder": "g", "of": "e", "om": "d", "on": "e", "ook": "d", "op": "d", "ou": "f",
    "par": "f", "para": "sp", "pas": "f", "pelo": "p", "per": "i", "pero": "s", "plus": "f", "por": "sp", "pour": "f",
    "quando": "pi", "que": "fsp", "questa": "i", "questo": "i", "qui": "f", "se": "s", "ses": "f", "seu": "p", "she": "e",
    "sich": "g", "sie": "g", "sind": "g", "son": "s", "sono": "i", "sont": "f", "su": "s", "sua": "pi", "suo": "i",
    "sur": "f", "te": "d", "tem": "p", "that": "e", "the": "e", "their": "e", "there": "e", "they": "e", "this": "e",
    "to": "e", "uit": "d", "um": "p", "uma": "p", "un": "fsi", "una": "si", "und": "g", "une": "f", "van": "d", "von": "g",
    "voor": "d", "vous": "f", "war": "g", "was": "egd", "wat": "d", "we": "e", "were": "e", "what": "e", "when": "e",
    "which": "e", "who": "e", "wie": "g", "wir": "g", "wird": "g", "with": "e", "wo": "g", "wordt": "d", "would": "e",
    "y": "s", "yo": "s", "you": "e", "your": "e", "zij": "d", "zijn": "d", "zu": "g"  }';
  found text;
  most integer;
  n integer;
  language integer := 2;
begin
  if octet_length(sample) > length(sample) and p_among & 256 <> 0
    and 2 * regexp_count(sample, '[\u0400-\u04ff]') > regexp_count(sample, '[[:alpha:]]')
  then
    return 256;
  end if;
  select string_agg(small ->> w.word, '') into found
  from string_to_table(translate(sample, E'.,;:!?()"\'\n\t', '            '), ' ') w (word);
  most := length(found) - length(replace(found, 'e', ''));
  for i in 2 .. 7 loop
    n := length(found) - length(replace(found, substr('egfspid', i, 1), ''));
    if n > most and p_among & (1 << i) <> 0 then
      most := n;
      language := 1 << i;
    end if;
  end loop;
  return language;
end $$;
