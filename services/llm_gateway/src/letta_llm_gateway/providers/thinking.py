"""What local models write between think tags is reasoning."""

from __future__ import annotations

from collections.abc import Iterator

from letta_llm_gateway.domain.answers import Part, Reasoning, Text


class ThinkSplitter:
    """Splits streamed text into reasoning, between think tags at its beginning, and text."""

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield kinds and pieces; a piece that may be the beginning of a tag is held back."""
        if self._state == "text":
            yield "text", text
            return
        self._held += text
        if self._state == "start":
            yield from self._begin()
        if self._state == "opened" and (begun := self._held.lstrip()):
            self._state, self._held = "thinking", begun
        if self._state == "thinking":
            yield from self._think()
        if self._state == "closed" and (rest := self._held.lstrip()):
            self._state, self._held = "text", ""
            yield "text", rest

    def flush(self) -> Iterator[tuple[str, str]]:
        """Yield what was held back."""
        held = self._held.strip() if self._state in {"opened", "closed"} else self._held
        if self._state == "thinking":
            held = held.rstrip()
        if held:
            yield ("reasoning" if self._state == "thinking" else "text"), held
        self._held = ""

    def _begin(self) -> Iterator[tuple[str, str]]:
        begin = self._held.lstrip()
        if begin.startswith(self._OPEN):
            self._state, self._held = "opened", begin[len(self._OPEN) :]
        elif not self._OPEN.startswith(begin):
            self._state, held, self._held = "text", self._held, ""
            yield "text", held

    def _think(self) -> Iterator[tuple[str, str]]:
        before, found, after = self._held.partition(self._CLOSE)
        if found:
            if before := before.rstrip():
                yield "reasoning", before
            self._state, self._held = "closed", after
            return
        safe = max(0, len(self._held) - len(self._CLOSE) + 1)
        safe = len(self._held[:safe].rstrip())  # blanks before the closing tag are no reasoning
        if safe:
            yield "reasoning", self._held[:safe]
            self._held = self._held[safe:]


def split_thinking(text: str, reasoning: str = "") -> list[Part]:
    """Return reasoning and a whole text as parts, read as if they had been streamed."""
    splitter = ThinkSplitter()
    pieces = {"reasoning": reasoning, "text": ""}
    for kind, piece in (*splitter.feed(text), *splitter.flush()):
        pieces[kind] += piece
    thought, said = pieces["reasoning"], pieces["text"]
    return [*([Reasoning(thought)] if thought else []), *([Text(said)] if said else [])]
