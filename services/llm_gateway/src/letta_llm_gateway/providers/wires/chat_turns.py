"""Messages of chat completions for servers whose templates want users and assistants to take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from letta_llm_gateway.providers.wires.bodies import Json, encoded, inside, listed, together

NOBODY = b'{"role":"user","content":"..."}'
"""What a user says where the assistant would begin."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message that may grow by those that follow it, its parts written as JSON."""

    role: str
    text: bytes | None = None
    """The text without its quotes; None is no text at all."""
    rows: bytes = b""
    """The content as parts of a list, each message's text a part of its own."""
    listed: bool = False
    """The content must be a list, for it is not text alone."""
    thoughts: bytes | None = None
    """The reasoning without its quotes."""
    calls: bytes = b""
    whole: bytes = b""
    """A message that does not grow, as it is: each result of a tool answers a call of its own."""

    def takes(self, other: Said) -> bool:
        """Say whether both are of one speaker, so that they are one message."""
        return self.role == other.role and not self.whole

    def with_all(self, others: Sequence[Said]) -> Said:
        """Return this message and others of its speaker as one."""
        all_ = (self, *others)
        thoughts = [each.thoughts for each in all_ if each.thoughts is not None]
        texts = [each.text for each in all_ if each.text]
        return Said(
            self.role,
            b"\\n".join(texts) if texts else self.text,
            together(*(each.rows for each in all_)),
            any(each.listed for each in all_),
            b"\\n".join(thoughts) if thoughts else None,
            together(*(each.calls for each in all_)),
        )

    def encoded(self) -> bytes:
        """Write the message as JSON."""
        if self.whole:
            return self.whole
        text = b"null" if self.text is None else b'"%s"' % self.text
        content = b"[%s]" % self.rows if self.listed else text
        told = b"" if self.thoughts is None else b',"reasoning_content":"%s"' % self.thoughts
        calls = b',"tool_calls":[%s]' % self.calls if self.calls else b""
        return b'{"role":"%s","content":%s%s%s}' % (self.role.encode(), content, told, calls)


def said(message: Json) -> Said:
    """Return a message as one that may grow."""
    role, content = message["role"], message["content"]
    if role == "tool":
        return Said(role, whole=encoded(message))
    thoughts = message.get("reasoning_content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    return Said(
        role,
        inside(content) if isinstance(content, str) else None,
        listed(parts),
        isinstance(content, list),
        None if thoughts is None else inside(thoughts),
        listed(message.get("tool_calls", ())),
    )
