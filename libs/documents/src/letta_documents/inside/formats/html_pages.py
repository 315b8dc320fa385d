"""HTML as text: read tag by tag, without a tree, so that no depth matters."""

from __future__ import annotations

from html.parser import HTMLParser

from letta_documents.inside.writing import CODE, TextWriter, clean, flat

_SKIPPED = {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "select", "nav"}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt", "fieldset"),
    *("figcaption", "figure", "footer", "form", "header", "hr", "html", "main", "p", "section", "summary"),
}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = {"td", "th"}
_LISTS = {"ul": "-", "ol": "1."}
_MOST_INSET = 6
_LONGEST_CELL = 100_000


def write_page(writer: TextWriter, text: str) -> None:
    """Write an HTML page."""
    page = _Page(writer)
    page.feed(text)
    page.close()
    page.finish()


class _Page(HTMLParser):
    """Turns tags into calls of a writer."""

    def __init__(self, writer: TextWriter) -> None:
        super().__init__(convert_charrefs=True)
        self._writer = writer
        self._text: list[str] = []
        self._lists: list[str] = []
        self._item = ""
        self._skipping = ""
        self._skipped = 0
        self._tables = 0
        self._rows: list[list[str]] = []
        self._in_pre = 0
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if self._skipping:
            self._skipped += tag == self._skipping
        elif tag in _SKIPPED:
            self._skipping, self._skipped = tag, 1
        elif tag == "title":
            self._in_title = True
        elif tag == "table":
            self._begin_table()
        elif self._tables:
            self._begin_in_table(tag)
        else:
            self._begin_block(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("br", "hr"):
            self.handle_endtag(tag)

    def _begin_block(self, tag: str) -> None:
        if tag == "br":
            self._text.append("\n")
        elif tag == "pre":
            self._flush()
            self._in_pre += 1
        elif tag in _LISTS:
            self._flush()
            self._lists.append(_LISTS[tag])
        elif tag == "li":
            self._flush()
            self._item = "  " * min(len(self._lists) - 1, _MOST_INSET) + (self._lists[-1] if self._lists else "-")
        elif tag in _BLOCKS or tag in _HEADINGS:
            self._flush()

    def _begin_table(self) -> None:
        if not self._tables:
            self._flush()
        self._tables += 1

    def _begin_in_table(self, tag: str) -> None:
        if self._tables > 1 or tag not in {"tr", *_CELLS}:
            self._text.append(" " if tag in _BLOCKS or tag in {"br", "tr", "li", *_CELLS} else "")
            return
        self._end_cell()
        if tag == "tr":
            self._rows.append([])
        else:
            if not self._rows:
                self._rows.append([])
            self._rows[-1].append("")

    def _end_cell(self) -> None:
        text = flat("".join(self._text))[:_LONGEST_CELL]
        self._text.clear()
        if not text:
            return
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] = f"{self._rows[-1][-1]} {text}".strip()
        else:  # text of a table that is in no cell, such as its caption
            self._writer.paragraph(text)

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            self._skipped -= tag == self._skipping
            if not self._skipped:
                self._skipping = ""
        elif tag == "title":
            self._in_title = False
        elif tag == "table" and self._tables:
            self._end_table()
        elif self._tables:
            self._text.append(" " if tag in _BLOCKS else "")
            if self._tables == 1 and tag in _CELLS:
                self._end_cell()
        elif tag in _HEADINGS:
            self._writer.heading(_HEADINGS[tag], "".join(self._text))
            self._text.clear()
        elif tag == "pre" and self._in_pre:
            self._end_pre()
        elif tag in _LISTS:
            self._flush()
            if self._lists:
                self._lists.pop()
        elif tag in _BLOCKS or tag == "li":
            self._flush()

    def _end_table(self) -> None:
        self._tables -= 1
        if self._tables:
            return
        self._end_cell()
        self._writer.table(self._rows)
        self._rows = []

    def _end_pre(self) -> None:
        self._in_pre -= 1
        text = clean("".join(self._text)).strip("\n")
        self._text.clear()
        if text.strip():
            self._writer.begin(CODE)
            self._writer.write(f"```\n{text}\n```\n\n")
            self._writer.begin()

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._writer.title += data
        elif not self._skipping:
            self._text.append(data if self._in_pre else data.replace("\n", " "))

    def _flush(self) -> None:
        if self._in_pre:
            return
        lines = [flat(line) for line in "".join(self._text).split("\n")]
        self._text.clear()
        text = "\n".join(line for line in lines if line)
        if text and self._item:
            self._writer.item(self._item, text)
        elif text:
            self._writer.paragraph(text)
        if text:
            self._item = ""

    def finish(self) -> None:
        """Write what is left where tags were never closed."""
        if self._tables:
            self._tables = 1
            self._end_table()
        if self._in_pre:
            self._in_pre = 1
            self._end_pre()
        self._flush()
