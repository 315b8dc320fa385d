"""Why a vendor refuses, in its own words, whatever form its error bodies have."""

from __future__ import annotations

import html
import json
import re
from typing import Any

# Repeats are bounded: vendors' pages are not ours, and an open pattern could take any time.
_HIDDEN = re.compile(r"<(script|style|head)\b.{0,4000}?</\1>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]{0,2000}>")
_KEYS = (
    *("message", "Message", "finishMessage", "blockReasonMessage", "explanation", "detail", "error_description"),
    *("error_message", "msg", "title", "finishReason", "blockReason", "category", "reason", "error"),
)
_MOST = 4_000
_DEPTH = 6


def reason_of(data: bytes) -> str:
    """Return what an error body says; nothing when it says nothing."""
    text = data[:_MOST].decode("utf-8", "replace").strip()
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return _plain(text)
    return said(body)


def said(body: Any) -> str:
    """Return what a part of an answer says of why it was blocked or refused."""
    return _said(body, 0)


def _said(body: Any, depth: int) -> str:
    """Return the words of a part of an error body: of errors within it first, for those are closest to the cause."""
    if isinstance(body, str):
        return _plain(body[:_MOST])
    if depth > _DEPTH:
        return ""
    if isinstance(body, list):
        return "; ".join(filter(None, (_said(each, depth + 1) for each in body[:5])))
    if not isinstance(body, dict):
        return ""
    inner = body.get("error")
    if isinstance(inner, (dict, list)) and (said := _said(inner, depth + 1)):
        return said
    words = next((said for key in _KEYS if (said := _said(body.get(key), depth + 1))), "")
    words = words or _said(body.get("errors"), depth + 1)
    kinds = [body.get(key) for key in ("param", "code", "type", "status", "finishReason", "blockReason", "category")]
    marks = [each for each in kinds if isinstance(each, str) and each and each not in words and each != "error"]
    place = body.get("loc")
    if isinstance(place, list):
        marks.append(".".join(map(str, place[:10])))
    return ": ".join([*marks, words]) if words else ""


def _plain(text: str) -> str:
    """Return a text without markup, on one line."""
    if "<" in text:
        text = html.unescape(_TAG.sub(" ", _HIDDEN.sub(" ", text)))
    return " ".join(text.split())
