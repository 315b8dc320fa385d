"""What local models write between think tags is reasoning."""

from __future__ import annotations

from collections.abc import Iterator

from letta.common.v1.message_pb2 import ContentPart
from letta_llm_gateway.providers.parts import reasoning_part, text_part

OPEN, CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Splits streamed text into reasoning, between think tags at its beginning, and text.

    Some chat templates write the opening tag into the prompt, so that the model writes the closing one alone. Whether a
    model does so shows only when that tag comes: what came before it was told as text then, and `lone` says so. For a
    model that is known to do so, everything up to the closing tag is reasoning (`opened`).
    """

    def __init__(self, *, opened: bool = False, lone_tags: bool = False) -> None:
        self._held = ""
        self._state = "start"
        self._opened = opened
        self._lone_tags = lone_tags
        self.lone = False

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield kinds and pieces; a piece that may be the beginning of a tag is held back."""
        if self._state == "text" and not self._lone_tags:
            yield "text", text
            return
        self._held += text
        if self._state == "start":
            self._begin()
        if self._state == "opened" and (begun := self._held.lstrip()):
            self._state, self._held = "thinking", begun
        if self._state == "thinking":
            yield from self._until_closed("reasoning")
        elif self._state == "text":
            yield from self._text()
        if self._state == "closed" and (rest := self._held.lstrip()):
            self._state, self._held, self._lone_tags = "text", "", False
            yield "text", rest

    def flush(self) -> Iterator[tuple[str, str]]:
        """Yield what was held back."""
        held = self._held.strip() if self._state in {"opened", "closed"} else self._held
        if self._state == "thinking":
            held = held.rstrip()
        if held:
            yield ("reasoning" if self._state == "thinking" else "text"), held
        self._held = ""

    def _begin(self) -> None:
        begin = self._held.lstrip()
        if begin.startswith(OPEN):
            self._state, self._held = "opened", begin[len(OPEN) :]
        elif not OPEN.startswith(begin):
            self._state = "thinking" if self._opened else "text"

    def _text(self) -> Iterator[tuple[str, str]]:
        if self._lone_tags:
            yield from self._until_closed("text")
            self.lone = self._state == "closed"
        elif self._held:
            yield "text", self._held
            self._held = ""

    def _until_closed(self, kind: str) -> Iterator[tuple[str, str]]:
        before, found, after = self._held.partition(CLOSE)
        if found:
            if before := before.rstrip():
                yield kind, before
            self._state, self._held = "closed", after
            return
        safe = len(self._held) - _begun(self._held)
        if kind == "reasoning":
            safe = len(self._held[:safe].rstrip())  # blanks before the closing tag are no reasoning
        if safe:
            yield kind, self._held[:safe]
            self._held = self._held[safe:]


def _begun(text: str) -> int:
    """Return how many characters at the end of a text may be the beginning of the closing tag."""
    return next((length for length in range(len(CLOSE) - 1, 0, -1) if text.endswith(CLOSE[:length])), 0)


def split_thinking(text: str, reasoning: str = "", *, lone_tags: bool = False) -> list[ContentPart]:
    """Return reasoning and a whole text as parts, read as if they had been streamed.

    With `lone_tags`, what stands before a closing tag without an opening one is reasoning.
    """
    splitter = ThinkSplitter(opened=lone_tags and not reasoning and _is_lone(text))
    pieces = {"reasoning": reasoning, "text": ""}
    for kind, piece in (*splitter.feed(text), *splitter.flush()):
        pieces[kind] += piece
    thought, said = pieces["reasoning"], pieces["text"]
    return [*([reasoning_part(thought)] if thought else []), *([text_part(said)] if said else [])]


def _is_lone(text: str) -> bool:
    return CLOSE in text and OPEN not in text.partition(CLOSE)[0]
