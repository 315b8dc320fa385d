"""The readable text of an HTML page, with headings, lists and links as Markdown writes them.

Pages come from strangers: every step is linear in the length of the page, which `html.parser` is not.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urljoin

_SILENT = {"script", "style", "noscript", "template", "svg", "iframe", "object", "head", "nav", "form", "button"}
_RAW = {"script", "style"}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "figcaption", "figure", "footer", "header"),
    *("hr", "main", "ol", "p", "pre", "section", "table", "tbody", "thead", "tr", "ul"),
}
_BREAKS = {
    **dict.fromkeys(_BLOCKS, "\n\n"),
    **{f"h{level}": f"\n\n{'#' * level} " for level in range(1, 7)},
    **{"li": "\n- ", "td": " | ", "th": " | ", "br": "\n"},
}
_HEADINGS = {f"h{level}" for level in range(1, 7)}
_TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]{0,20})")
# Bounded, so that a page of quotes and blanks costs no more than its length.
_HREF = re.compile(r"""\shref\s{0,9}=\s{0,9}(?:"([^"]{0,2048})"|'([^']{0,2048})'|([^\s"'>]{1,2048}))""", re.IGNORECASE)
_LONGEST_TAG = 8192


class _Reader:
    """Collects the title and the parts of the text."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._silent: dict[str, int] = {}
        self._link: tuple[int, str] | None = None
        self.in_title = False
        self.title: list[str] = []
        self.parts: list[str] = []

    def open(self, name: str, tag: str) -> None:
        if name == "title":
            self.in_title = True
        elif name in _SILENT:
            self._silent[name] = self._silent.get(name, 0) + 1
        elif self._is_silent():
            return
        elif name == "a":
            found = _HREF.search(tag[:_LONGEST_TAG])
            self._link = (len(self.parts), next(filter(None, found.groups()), "") if found else "")
        elif name in _BREAKS:
            self.parts.append(_BREAKS[name])

    def close(self, name: str) -> None:
        if name == "title":
            self.in_title = False
        elif name in _SILENT:
            self._silent[name] = max(self._silent.get(name, 0) - 1, 0)
        elif self._is_silent():
            return
        elif name == "a":
            self._close_link()
        elif name in _BLOCKS or name in _HEADINGS:
            self.parts.append("\n\n")

    def text(self, text: str) -> None:
        if self.in_title:
            self.title.append(_plain(text))
        elif text and not self._is_silent():
            self.parts.append(_plain(text))

    def _is_silent(self) -> bool:
        return any(self._silent.values())

    def _close_link(self) -> None:
        if self._link is None:
            return
        begin, href = self._link
        self._link = None
        text = "".join(self.parts[begin:]).strip()
        # Such links lead to nothing that could be fetched.
        if not text or not href or href.startswith(("#", "javascript:", "data:")):
            return
        try:
            target = urljoin(self._base, _plain(href))
        except ValueError:
            return
        self.parts[begin:] = [f"[{text}]({target})"]


def text_of_html(html: str, url: str) -> tuple[str, str]:
    """Return the title and the text of a page."""
    reader = _Reader(url)
    for piece in _pieces(html):
        tag = _TAG.match(piece)
        if tag is None and (piece == "<" or piece[0] != "<"):
            reader.text(piece)
        elif tag is None:  # a declaration
            continue
        elif piece[1] == "/":
            reader.close(tag[1].lower())
        else:
            reader.open(tag[1].lower(), piece)
    text = re.sub(r" ?\n ?", "\n", re.sub(r" {2,}", " ", "".join(reader.parts)))
    return " ".join("".join(reader.title).split()), re.sub(r"\n{3,}", "\n\n", text).strip()


def _pieces(html: str) -> Iterator[str]:
    """Yield tags and the texts between them; comments and the insides of scripts are left out."""
    # Some letters become two in lower case, and places in both texts would no longer agree.
    lower = html.lower() if len(html.lower()) == len(html) else html
    place = 0
    while place < len(html):
        begin = html.find("<", place)
        if begin < 0:
            yield html[place:]
            return
        if begin > place:
            yield html[place:begin]
        is_comment = html.startswith("<!--", begin)
        mark = "-->" if is_comment else ">"
        following = html[begin + 1 : begin + 2]
        if not (following.isalpha() or following in {"/", "!", "?"}):
            yield "<"
            place = begin + 1
            continue
        end = html.find(mark, begin + 1)
        if end < 0:
            return
        piece, place = html[begin : end + 1], end + len(mark)
        if is_comment:
            continue
        yield piece
        tag = _TAG.match(piece)
        if tag is not None and piece[1] != "/" and tag[1].lower() in _RAW:
            # The inside of a script may look like tags.
            place = lower.find(f"</{tag[1].lower()}", place)
            if place < 0:
                return


def _plain(text: str) -> str:
    """Replace entities and fold white space."""
    with suppress(ValueError):  # a number with thousands of digits
        text = entities.unescape(text)
    return re.sub(r"\s+", " ", text)
