"""The responses wire of the fake OpenAI: whole answers and streamed events."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.wire import Json, Say, arguments_of, cut, id_of

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def last_said(body: Json) -> tuple[str, str]:
    """Return role and text of the newest item."""
    item = body["input"][-1]
    if item.get("type") == "function_call_output":
        return "tool", item["output"]
    content = item.get("content") or ""
    return item["role"], content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def whole(said: Say, body: Json) -> Json:
    """Return a whole answer."""
    reason = _INCOMPLETE.get(said.finish or "")
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_790_000_000,
        "model": body["model"],
        "status": "incomplete" if reason else "completed",
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": _items(said, body),
        "usage": said.usage if said.usage is not None else {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18},
    }


def frames_of(said: Say, body: Json) -> list[bytes]:
    """Return the events of a stream, numbered."""
    answer = whole(said, body)
    begun = {**answer, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    rows = [_item_events(at, item, said.piece) for at, item in enumerate(answer["output"])]
    events = [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]
    if said.interleaved:
        longest = max(map(len, rows), default=0)
        events += [row[turn] for turn in range(longest) for row in rows if turn < len(row)]
    else:
        events += [event for row in rows for event in row]
    events.append({"type": f"response.{answer['status']}", "response": answer})
    return [frame({**event, "sequence_number": at}) for at, event in enumerate(events)]


def frame(event: Json) -> bytes:
    """Return an event as it goes out."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


ERROR = frame({"type": "error", "code": "server_error", "message": "The server is overloaded", "param": None})


def _items(said: Say, body: Json) -> list[Json]:
    items: list[Json] = []
    if said.reasoning or said.signature:
        summary = [{"type": "summary_text", "text": said.reasoning}] if said.reasoning else []
        thought: Json = {"type": "reasoning", "id": "rs_0", "summary": summary}
        if "reasoning.encrypted_content" in body.get("include", ()) and said.signature:
            thought["encrypted_content"] = said.signature
        items.append(thought)
    if said.text:
        content = [{"type": "output_text", "text": said.text, "annotations": []}]
        items.append({"type": "message", "id": "msg_0", "role": "assistant", "status": "completed", "content": content})
    for at, call in enumerate(said.calls):
        id = id_of(said, at, "call").get("id")
        ids = {"id": f"fc_{at}", **({"call_id": id} if id else {}), "status": "completed"}
        items.append({"type": "function_call", **ids, "name": call[0], "arguments": arguments_of(call)})
    return items


def _item_events(at: int, item: Json, size: int) -> list[Json]:
    where: Json = {"output_index": at, "item_id": item["id"]}
    begun, deltas = _BODIES[item["type"]](item, where, size)
    return [
        {"type": "response.output_item.added", "output_index": at, "item": begun},
        *deltas,
        {"type": "response.output_item.done", "output_index": at, "item": item},
    ]


def _message(item: Json, where: Json, size: int) -> tuple[Json, list[Json]]:
    part, here = item["content"][0], {**where, "content_index": 0}
    pieces: list[Json] = [
        {"type": "response.output_text.delta", **here, "delta": piece} for piece in cut(part["text"], size)
    ]
    return {**item, "content": [], "status": "in_progress"}, [
        {"type": "response.content_part.added", **here, "part": {**part, "text": ""}},
        *pieces,
        {"type": "response.output_text.done", **here, "text": part["text"]},
        {"type": "response.content_part.done", **here, "part": part},
    ]


def _call(item: Json, where: Json, size: int) -> tuple[Json, list[Json]]:
    pieces: list[Json] = [
        {"type": "response.function_call_arguments.delta", **where, "delta": piece}
        for piece in cut(item["arguments"], size)
    ]
    done = {"type": "response.function_call_arguments.done", **where, "arguments": item["arguments"]}
    return {**item, "arguments": "", "status": "in_progress"}, [*pieces, done]


def _thought(item: Json, where: Json, size: int) -> tuple[Json, list[Json]]:
    found: list[Json] = []
    for index, part in enumerate(item["summary"]):
        here: Json = {**where, "summary_index": index}
        found.append({"type": "response.reasoning_summary_part.added", **here, "part": {**part, "text": ""}})
        delta = {"type": "response.reasoning_summary_text.delta", **here}
        found.extend({**delta, "delta": piece} for piece in cut(part["text"], size))
        found.append({"type": "response.reasoning_summary_text.done", **here, "text": part["text"]})
    return {key: value for key, value in {**item, "summary": []}.items() if key != "encrypted_content"}, found


_BODIES: Any = {"message": _message, "function_call": _call, "reasoning": _thought}
