"""The built-in tools: calls that become RPCs of memory instead of code in a sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from letta.common.v1 import message_pb2
from letta.memory.v1 import context_service_pb2 as memory_pb2
from letta.memory.v1.message_service_pb2 import SearchStoredMessagesRequest
from letta.memory.v1.passage_pb2 import PassageOrigin
from letta.memory.v1.passage_service_pb2 import (
    TAG_MATCH_MODE_ALL,
    TAG_MATCH_MODE_ANY,
    CreateArchivalMemoryRequest,
    SearchArchivalMemoryRequest,
)
from letta_agent.domain.context.zones import set_time
from letta_agent.domain.peers.memory import MemoryPeer, Message
from letta_agent.domain.toolcalls.block_patches import Edit, PatchError, edits_of
from letta_agent.domain.toolcalls.builtin_calls import BuiltinArgumentError, BuiltinCall
from letta_agent.domain.toolcalls.failures import ends_run, for_model
from letta_agent.domain.toolcalls.file_tools import FILE_TOOLS, FileTools
from letta_agent.domain.toolcalls.outcomes import Outcome, failed, returned
from letta_common.clock import Clock
from letta_common.errors import AppError
from letta_messages.rendering import text_of

T = TypeVar("T")
_ROLES = {
    "assistant": message_pb2.MESSAGE_ROLE_ASSISTANT,
    "user": message_pb2.MESSAGE_ROLE_USER,
    "tool": message_pb2.MESSAGE_ROLE_TOOL,
}
"""Roles that a search can ask for."""
_UNASKED = [
    role for role in message_pb2.MessageRole.values() if role not in (0, message_pb2.MESSAGE_ROLE_TOOL)
]  # returns of tools are found only where somebody asks for them: they repeat what messages say
_PLACES = {1: "best match", 2: "2nd best match", 3: "3rd best match"}
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")


def keepable(value: Any) -> Any:
    """Return a JSON value without the characters that memory cannot keep: NUL and halves of surrogate pairs."""
    if isinstance(value, str):
        return _UNKEEPABLE.sub("", value)
    if isinstance(value, Mapping):
        return {keepable(key): keepable(item) for key, item in value.items()}
    return [keepable(item) for item in value] if isinstance(value, list) else value


_CALL_ID = 128  # characters of a call's id that a passage keeps; vendors make them
_Run = Callable[["BuiltinTools", BuiltinCall], Awaitable[str]]


class BuiltinTools:
    """Executes built-in tools."""

    def __init__(self, memory: MemoryPeer, clock: Clock) -> None:
        self._memory = memory
        self._clock = clock
        self._files = FileTools(memory)

    @staticmethod
    def has(name: str) -> bool:
        """Say whether there is a built-in tool of this name that needs no sandbox."""
        return name in _TOOLS or name in FILE_TOOLS

    async def execute(self, call: BuiltinCall) -> Outcome:
        """Execute a call. What the model can mend is an error result; raises what `ends_run` names."""
        try:
            if call.name in FILE_TOOLS:
                return returned(await FILE_TOOLS[call.name](self._files, call))
            return returned(await _TOOLS[call.name](self, call))
        except (BuiltinArgumentError, PatchError) as error:
            return failed(str(error))
        except AppError as error:
            if ends_run(error):
                raise
            return failed(for_model(error))

    async def edit(self, call: BuiltinCall, edit: Edit, *, part: int | None = None) -> str:
        """Edit a block and return its new value."""
        edit.agent_id, edit.conversation_id, edit.fence = call.run.agent_id, call.run.conversation_id, call.run.fence
        # A call with several edits needs a key for each; a repeat goes through them in the same order.
        edit.idempotency_key = call.key if part is None else f"{call.key}:{part}"
        return (await self._memory.edit_block(edit)).block.value

    async def append(self, call: BuiltinCall) -> str:
        """Append a line to a block."""
        label, line = call.text("label"), memory_pb2.AppendEdit(content=call.text("content"))
        return await self.edit(call, Edit(label=label, append=line))

    async def replace_all(self, call: BuiltinCall) -> str:
        """Replace every occurrence of a text."""
        old, new = call.text("old_content"), call.text("new_content")
        return await self.edit(call, _replacing(call.text("label"), old, new, everywhere=True))

    async def replace(self, call: BuiltinCall) -> str:
        """Replace a text that occurs once."""
        new = call.arguments.get("new_string", call.arguments.get("new_str", ""))
        old = call.arguments.get("old_string", call.arguments.get("old_str"))
        if not isinstance(old, str) or not isinstance(new, str):
            raise BuiltinArgumentError(f"{call.name}() needs the strings 'old_string' and 'new_string'")
        return await self.edit(call, _replacing(call.text("label"), old, new))

    async def insert(self, call: BuiltinCall) -> str:
        """Insert lines."""
        text = call.text("new_string", call.arguments.get("new_str"))
        lines = memory_pb2.InsertEdit(text=text, line=call.number("insert_line", -1))
        return await self.edit(call, Edit(label=call.text("label"), insert=lines))

    async def rethink(self, call: BuiltinCall) -> str:
        """Replace a whole block."""
        return await self.edit(call, _rethinking(call.text("label"), call.text("new_memory")))

    async def rethink_user(self, call: BuiltinCall) -> str:
        """Replace what is known of the person."""
        return await self.edit(call, _rethinking("human", call.text("new_memory")))

    async def finish(self, _: BuiltinCall) -> str:
        """Say that nothing is left to edit."""
        return "None"

    async def patch(self, call: BuiltinCall) -> str:
        """Apply a patch to one or several blocks."""
        done = []
        for part, (edit, said) in enumerate(edits_of(call.text("label", ""), call.text("patch"))):
            await self.edit(call, edit, part=part)
            done.append(said)
        return "\n".join(done)

    async def memory(self, call: BuiltinCall) -> str:
        """Perform one of the commands of the tool `memory`."""
        command = call.text("command")
        perform = _COMMANDS.get(command)
        if perform is None:
            raise BuiltinArgumentError(
                f"Error: Unknown command '{command}'. Supported commands: {', '.join(_COMMANDS)}"
            )
        edit, said = perform(call)
        await self.edit(call, edit)
        return said

    async def archive(self, call: BuiltinCall) -> str:
        """Insert a passage."""
        text, tags = call.text("content"), call.texts("tags")
        origin = PassageOrigin(
            agent_id=call.run.agent_id,
            conversation_id=call.run.conversation_id,
            run_id=call.run.run_id,
            message_id=call.message_id,
            tool_call_id=keepable(call.call_id)[:_CALL_ID],
            tool_name=call.name,
        )
        request = CreateArchivalMemoryRequest(
            agent_id=call.run.agent_id, text=text, tags=tags, request_id=call.key, origin=origin
        )
        await self._memory.insert_passage(request)
        return "None"

    async def search_archive(self, call: BuiltinCall) -> str:
        """Search the archive."""
        request = SearchArchivalMemoryRequest(
            agent_id=call.run.agent_id,
            query=call.text("query"),
            # Held within bounds instead of refused: a model may ask for anything.
            top_k=max(1, min(call.number("top_k", 5), 100)),
            tags=call.texts("tags"),
            tag_match_mode=TAG_MATCH_MODE_ALL if call.text("tag_match_mode", "any") == "all" else TAG_MATCH_MODE_ANY,
        )
        start = call.text("start_datetime", call.arguments.get("start_datetime") or "")
        end = call.text("end_datetime", call.arguments.get("end_datetime") or "")
        set_time(request.start_datetime, start, call.timezone)
        set_time(request.end_datetime, end, call.timezone, end=True)
        found = (await self._memory.search_passages(request)).results
        return _json(
            [
                {
                    "id": each.id,
                    "timestamp": each.timestamp.ToDatetime(tzinfo=UTC).isoformat(),
                    "content": each.content,
                    "tags": list(each.tags),
                    "relevance": relevance,
                }
                for relevance, each in _newest_first(found, lambda each: each.timestamp.ToNanoseconds())
            ]
        )

    async def search_conversation(self, call: BuiltinCall) -> str:
        """Search older messages."""
        request = SearchStoredMessagesRequest(
            agent_id=call.run.agent_id,
            query=str(call.arguments.get("query") or ""),
            # Held within bounds instead of refused: a model may ask for anything.
            limit=max(1, min(call.number("limit", 5), 50)),
            roles=_roles(call) or _UNASKED,
        )
        set_time(request.start_date, str(call.arguments.get("start_date") or ""), call.timezone)
        set_time(request.end_date, str(call.arguments.get("end_date") or ""), call.timezone, end=True)
        found = [Message.FromString(each.message) for each in (await self._memory.search_messages(request)).results]
        # Former searches hold the words of this one, and would hide what they were after.
        kept = [each for each in found if not _belongs_to(call.name, each)]
        ordered = _newest_first(kept, lambda each: each.created_at.ToNanoseconds())
        results = [{**self._shown(each), "relevance": relevance} for relevance, each in ordered]
        said = f"Showing {len(results)} results:" if results else "No results found."
        return _json({"message": said, "results": results})

    async def send(self, call: BuiltinCall) -> str:
        """Say something to the person."""
        call.text("message")
        return "Sent message successfully."

    def _shown(self, found: Message) -> dict[str, str]:
        role = message_pb2.MessageRole.Name(found.role).removeprefix("MESSAGE_ROLE_").lower()
        when = found.created_at.ToDatetime(tzinfo=UTC)
        shown = {"timestamp": when.isoformat(), "role": role, "content": text_of(found) or _done(found)}
        return {**shown, "time_ago": _ago(when, self._clock.now())}


def _newest_first(found: Iterable[T], time_of: Callable[[T], int]) -> list[tuple[str, T]]:
    """Return what a search found, best first, as a model reads it: the newest above, each with its place.

    Of two that tell of one thing, the one that holds now then stands above the other.
    """
    placed = [(_PLACES.get(place, f"{place}th best match"), each) for place, each in enumerate(found, 1)]
    return sorted(placed, key=lambda pair: time_of(pair[1]), reverse=True)


def _roles(call: BuiltinCall) -> list[message_pb2.MessageRole.ValueType]:
    asked = call.texts("roles")
    if unknown := [role for role in asked if role not in _ROLES]:
        raise BuiltinArgumentError(f"{call.name}(): 'roles' may be {', '.join(_ROLES)}, not '{unknown[0]}'")
    return [_ROLES[role] for role in asked]


def _belongs_to(name: str, found: Message) -> bool:
    return not text_of(found) and any(name in {part.tool_call.name, part.tool_return.name} for part in found.parts)


def _done(found: Message) -> str:
    """Return what a message without words did: what search found it by."""
    done = (part.tool_return.content or f"{part.tool_call.name} {part.tool_call.input}" for part in found.parts)
    return "\n".join(done).strip()


def _replacing(label: str, old: str, new: str, *, everywhere: bool = False) -> Edit:
    change = memory_pb2.ReplaceEdit(old_text=old, new_text=new, all_occurrences=everywhere)
    return Edit(label=label, replace=change)


def _rethinking(label: str, value: str) -> Edit:
    return Edit(label=label, rethink=memory_pb2.RethinkEdit(value=value))


def _create(call: BuiltinCall) -> tuple[Edit, str]:
    label, description = _label(call, "path"), call.text("description")
    made = memory_pb2.CreateEdit(value=call.text("file_text", ""), description=description)
    return Edit(label=label, create=made), f"Made the memory block '{label}'."


def _str_replace(call: BuiltinCall) -> tuple[Edit, str]:
    label = _label(call, "path")
    new, old = call.text("new_string", ""), call.text("old_string")
    return _replacing(label, old, new), f"Edited the memory block '{label}'."


def _insert(call: BuiltinCall) -> tuple[Edit, str]:
    label = _label(call, "path")
    lines = memory_pb2.InsertEdit(text=call.text("insert_text"), line=call.number("insert_line", -1))
    return Edit(label=label, insert=lines), f"Edited the memory block '{label}'."


def _delete(call: BuiltinCall) -> tuple[Edit, str]:
    label = _label(call, "path")
    return Edit(label=label, delete=memory_pb2.DeleteEdit()), f"Detached the memory block '{label}'."


def _rename(call: BuiltinCall) -> tuple[Edit, str]:
    if call.arguments.get("new_path"):
        label, new = _label(call, "old_path"), _label(call, "new_path")
        edit = Edit(label=label, rename=memory_pb2.RenameEdit(label=new))
        return edit, f"Renamed the memory block '{label}' to '{new}'."
    label = _label(call, "path")
    edit = Edit(label=label, rename=memory_pb2.RenameEdit(description=call.text("description")))
    return edit, f"Described the memory block '{label}' anew."


def _label(call: BuiltinCall, name: str) -> str:
    """Return the label that a path such as `/memories/human` names."""
    path = call.text(name).strip().removeprefix("/memories").strip("/")
    if not path:
        raise BuiltinArgumentError(f"{call.name}(): '{name}' must name a memory block, as in /memories/human")
    # Labels have no folders.
    return path.replace("/", "_")


_COMMANDS: dict[str, Callable[[BuiltinCall], tuple[Edit, str]]] = {
    "create": _create,
    "str_replace": _str_replace,
    "insert": _insert,
    "delete": _delete,
    "rename": _rename,
}

_TOOLS: dict[str, _Run] = {
    "core_memory_append": BuiltinTools.append,
    "core_memory_replace": BuiltinTools.replace_all,
    "memory_replace": BuiltinTools.replace,
    "memory_insert": BuiltinTools.insert,
    "memory_rethink": BuiltinTools.rethink,
    "rethink_user_memory": BuiltinTools.rethink_user,
    "memory_finish_edits": BuiltinTools.finish,
    "finish_rethinking_memory": BuiltinTools.finish,
    "memory_apply_patch": BuiltinTools.patch,
    "memory": BuiltinTools.memory,
    "archival_memory_insert": BuiltinTools.archive,
    "archival_memory_search": BuiltinTools.search_archive,
    "conversation_search": BuiltinTools.search_conversation,
    "send_message": BuiltinTools.send,
}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _ago(when: datetime, now: datetime) -> str:
    seconds = (now - when).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit} ago"
    return f"{max(0, int(seconds))}s ago"
