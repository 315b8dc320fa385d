"""Plain text, Markdown and source code: the text as it is, with a part for each section, table or definition."""

from __future__ import annotations

import re
from collections.abc import Iterator

from letta_documents.inside.writing import CODE, TABLE, TextWriter, clean

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]")
# What begins a definition in the languages that are common, at the outermost level or one level further in.
_DEFINITION = re.compile(
    r"(?P<inset>[ ]{0,4}|\t)(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|"
    r"pub(?:\([^)]{0,20}\))?|unsafe|extern|virtual|inline|override|sealed|open|data|partial|declare)[ \t]+){0,6}"
    r"(?:def|class|function\*?|func|fn|fun|struct|enum|interface|trait|impl|module|namespace|object|protocol|extension|"
    r"record|sub|message|service|type)[ \t]+(?P<name>[^\s({:=;]{1,120})"
)
_RECEIVER = re.compile(r"[ ]{0,4}func[ \t]+\([^)]{1,80}\)[ \t]*(?P<name>\w{1,120})")
_SQL = re.compile(
    r"create[ \t]+(?:or[ \t]+replace[ \t]+)?(?:table|view|function|procedure|type|index)[ \t]+(?P<name>\S{1,120})",
    re.IGNORECASE,
)
# Comments, decorators and attributes belong to what comes below them.
_BELONGS = re.compile(r"\s*(?:@|#|//|/\*|\*|--|;;)")
_OF_PARTS = 400


def write_plain(writer: TextWriter, text: str) -> None:
    """Write text as it is. Paragraphs are told by their blank lines."""
    writer.write(text)


def write_markdown(writer: TextWriter, text: str) -> None:
    """Write Markdown as it is, with a part for each section, table and block of code."""
    lines = clean(text).splitlines(keepends=True)
    at, fence = 0, ""
    while at < len(lines):
        line = lines[at]
        mark = _FENCE.match(line)
        if fence:
            writer.write(line)
            if mark and mark[1].startswith(fence):
                fence = ""
                writer.begin()
        elif mark:
            writer.begin(CODE)
            fence = mark[1]
            writer.write(line)
        else:
            at += _write_block(writer, lines, at)
            continue
        at += 1


def _write_block(writer: TextWriter, lines: list[str], at: int) -> int:
    """Write what begins at a line outside of code; return how many lines it has."""
    line, below = lines[at], lines[at + 1] if at + 1 < len(lines) else ""
    heading = _HEADING.match(line)
    if heading:
        text = line[heading.end() :].strip().rstrip("#").strip()
        writer.section(len(heading[1]), text)
        writer.title = writer.title or text
    elif "|" in line and _is_rule_of_table(below):
        return _write_table(writer, lines, at)
    elif line.strip() and _is_underlined(lines, at, below):
        level = 1 if below.lstrip().startswith("=") else 2
        writer.section(level, line)
        writer.title = writer.title or line.strip()
        writer.write(line + below)
        return 2
    writer.write(line)
    return 1


def _is_underlined(lines: list[str], at: int, below: str) -> bool:
    alone = at == 0 or not lines[at - 1].strip()
    # A list item, a quote, a row or a rule is no heading.
    is_mark = lines[at].lstrip()[:1] in ("-", "*", "+", ">", "|", "=", "_")
    return alone and not is_mark and set(below.strip()) in ({"="}, {"-"})


def _is_rule_of_table(line: str) -> bool:
    marks = set(line.strip())
    return marks <= set("|:- \t") and {"|", "-"} <= marks


def _write_table(writer: TextWriter, lines: list[str], at: int) -> int:
    writer.begin(TABLE)
    writer.write(lines[at] + lines[at + 1])
    writer.header_ends()
    count = 2
    while at + count < len(lines) and "|" in lines[at + count]:
        writer.write(lines[at + count])
        count += 1
    writer.begin()
    return count


def write_source(writer: TextWriter, text: str) -> None:
    """Write source code as it is, with a part for each definition."""
    lines = clean(text).splitlines(keepends=True)
    begins = dict(_definitions(lines))
    writer.begin(CODE)
    outer = ""
    for at, line in enumerate(lines):
        if at in begins:
            inset, name = begins[at]
            if not inset:
                outer = name
            writer.begin(CODE, name if not inset or not outer else f"{outer}.{name}")
        writer.write(line)


def _definitions(lines: list[str]) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield where definitions begin, with what belongs to them above; how far in they stand, and their names."""
    for at, line in enumerate(lines):
        found = _DEFINITION.match(line[:_OF_PARTS]) or _RECEIVER.match(line[:_OF_PARTS]) or _SQL.match(line[:_OF_PARTS])
        if found is None:
            continue
        begin = at
        while begin and _BELONGS.match(lines[begin - 1][:_OF_PARTS]) and at - begin < _OF_PARTS:
            begin -= 1
        yield begin, (found.groupdict().get("inset") or "", found["name"])
