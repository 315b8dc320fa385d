"""What a vendor got and answered, kept for people: secrets and images taken out, size capped, chosen by sample."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf.message import Message

from letta.common.v1.message_pb2 import ContentPart
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation

_SECRET_TEXT = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|lk|key|hf|ghp|gho|ghs|glpat|github_pat|xox[abeoprs])[-_][A-Za-z0-9_\-]{12,512}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bAIza[A-Za-z0-9_\-]{30,80}"
    r"|\beyJ[A-Za-z0-9_\-]{8,2048}\.[A-Za-z0-9_\-]{8,4096}\.[A-Za-z0-9_\-]{8,1024}"
    r"|\bBearer [A-Za-z0-9_\-.=+/~]{8,2048}"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]{0,16384}(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
    r"|(?<=://)[^\s/:@]{1,64}:[^\s/@]{1,128}(?=@)"
)
_SECRET_NAME = re.compile(
    r"(?:^|_|-)(?:api_?-?key|apikey|access_?key|secret|password|passwd|authorization|credentials?|private_?key)(?:$|_|-)"
    r"|(?:^|_|-)(?:auth|access|refresh|bearer|session|id)_?-?token$|^token$",
    re.IGNORECASE,
)
_DATA = re.compile(r"^(?:data:[\w/+.-]{1,80};base64,)?[A-Za-z0-9+/_\-\r\n]{1024,}={0,2}$")
REDACTED = "[redacted]"
LEFT_OUT = "[left out]"


@dataclass(frozen=True, slots=True)
class Tracing:
    """Whether and how traces are kept."""

    share: float = 0.0
    """Share of the steps that are kept, from 0 to 1."""
    most_bytes: int = 262_144
    """Most bytes of a request, and of an answer."""

    def wants(self, step_id: str) -> bool:
        """Say whether the calls of a step are kept: all of them or none, on every replica alike."""
        return bool(step_id) and zlib.crc32(step_id.encode()) < self.share * 2**32


@dataclass(frozen=True)
class TraceDraft:
    """A trace that is not written down yet: that is done apart from the call."""

    sent: bytes
    """What went to the vendor; empty when nothing went over the wire."""
    describe: Callable[[], str] | None
    """Writes the prompt down, for engines that have no wire."""
    made: Generation | None
    outcome: str
    prompt_bytes: int = 0
    """How large the prompt is that `describe` holds."""

    @cached_property
    def size(self) -> int:
        """Return about how many bytes it holds."""
        return len(self.sent) + self.prompt_bytes + (self.made.ByteSize() if self.made else 0) + 1024


def request_of(draft: TraceDraft, most: int) -> str:
    """Write down what the vendor got, as a JSON object."""
    if len(draft.sent) > 8 * most:  # reading it would cost more than it is worth
        return _short(draft.sent[:most].decode(errors="replace"), len(draft.sent), most)
    text = draft.describe() if draft.describe else draft.sent.decode(errors="replace")
    try:
        found = json.loads(text)
    except ValueError:
        return _short(text, len(draft.sent), most)
    return _capped(found if isinstance(found, dict) else {"body": found}, most)


def response_of(draft: TraceDraft, most: int) -> str:
    """Write down what came back, as a JSON object."""
    made = draft.made
    found: dict[str, Any] = {"outcome": draft.outcome, "finish_reason": None, "parts": []}
    if made is not None:
        found["finish_reason"] = FinishReason.Name(made.finish_reason).removeprefix("FINISH_REASON_")
        found["response_id"] = made.response_id
        found["usage"] = {name.removesuffix("_tokens"): count for name, count in _fields(made.usage).items()}
        found["parts"] = list(map(_part, made.parts))
    return _capped(found, most)


def _part(part: ContentPart) -> dict[str, Any]:
    kind = part.WhichOneof("part") or "text"
    return {"type": kind.title().replace("_", ""), **_fields(getattr(part, kind))}


def _fields(message: Message) -> dict[str, Any]:
    """Return the fields of a message by name; None for an optional one that is not there."""
    return {
        field.name: None if field.has_presence and not message.HasField(field.name) else getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
        if field.name != "is_native"
    }


def redacted(value: Any) -> Any:
    """Return JSON without secrets and without long binary data."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [redacted(each) for each in value]
    if isinstance(value, dict):
        return {
            key: REDACTED if isinstance(each, str) and each and _SECRET_NAME.search(key) else redacted(each)
            for key, each in value.items()
        }
    return value


def _text(text: str) -> str:
    if len(text) > 1024 and _DATA.match(text):
        return LEFT_OUT
    if text.startswith("{"):  # arguments of calls are JSON in JSON
        try:
            found = json.loads(text)
        except ValueError:
            pass
        else:
            return json.dumps(redacted(found), ensure_ascii=False)
    return _SECRET_TEXT.sub(REDACTED, text)


def _capped(found: dict[str, Any], most: int) -> str:
    data = json.dumps(redacted(found), ensure_ascii=False).encode(errors="replace")
    text = data.decode()
    return text if len(data) <= most else _short(text, len(data), most)


def _short(text: str, size: int, most: int) -> str:
    """Return the beginning of a text that is too long, as a JSON object."""
    head = _SECRET_TEXT.sub(REDACTED, text.encode(errors="replace")[: most // 2].decode(errors="ignore"))
    return json.dumps({"truncated": True, "bytes": size, "beginning": head}, ensure_ascii=False)
