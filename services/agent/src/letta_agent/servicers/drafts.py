"""From the words of a request to the agent that is to be made or changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from letta.agent.v1 import agent_pb2
from letta.agent.v1 import agent_service_pb2 as pb
from letta_agent.domain.agents.folders import FILES_OPEN, VIEW_CHARS
from letta_agent.domain.agents.records import Agent, AgentDraft, AgentType, Change
from letta_agent.domain.context.zones import zone_of
from letta_agent.domain.journal.inputs import created
from letta_agent.servicers.older_words import model_told, settings_told
from letta_common.errors import InvalidArgument
from letta_common.values.repeats import Digests
from letta_rpc.masks import changed_paths, copy_paths

_NAME = re.compile(r"[\w\s'\-]+")
_DECIDED = frozenset({"name", "system", "agent_type", "timezone", "etag"})
"""Fields that are not only copied: absent they keep a value, or they are checked first."""
_MODELS = frozenset({"model", "embedding", "context_window_limit", "compat"})
_BESIDE = frozenset({"tool_ids", "block_ids", "folder_ids", "identity_ids", "secret_values"})
"""Fields that are kept beside the definition."""
_APART = _DECIDED | _MODELS | _BESIDE


def draft_of(request: pb.CreateAgentRequest, now: datetime, digests: Digests) -> AgentDraft:
    """Return the agent that a request describes. Raises InvalidArgument."""
    given = request.agent
    if given.name and not _NAME.fullmatch(given.name):
        raise InvalidArgument("a name has letters, digits, spaces, - _ and ' only", field="name")
    return AgentDraft(
        state=_state(given),
        model=model_told(given.model, given.compat),
        window=given.context_window_limit or given.compat.llm_config.context_window,
        embedding=given.embedding or given.compat.embedding_config.handle,
        new_blocks=tuple(request.memory_blocks),
        block_ids=tuple(given.block_ids),
        folder_ids=tuple(dict.fromkeys(given.folder_ids)),
        identity_ids=tuple(dict.fromkeys(given.identity_ids)),
        tools=tuple(request.tools),
        tool_ids=tuple(given.tool_ids),
        base_tools=not request.HasField("include_base_tools") or request.include_base_tools,
        base_rules=not request.HasField("include_base_tool_rules") or request.include_base_tool_rules,
        multi_agent_tools=request.include_multi_agent_tools,
        messages=tuple(created(message, now) for message in request.initial_message_sequence),
        secrets=dict(given.secret_values),
        request_id=request.request_id,
        request_hash=digests.of(request) if request.request_id else b"",
    )


def _state(given: Agent) -> Agent:
    state = Agent(
        name=given.name,
        system=given.system,
        agent_type=given.agent_type or AgentType.AGENT_TYPE_LETTA_V1_AGENT,
        timezone=zone_of(given.timezone),
        max_files_open=FILES_OPEN,
        per_file_view_window_char_limit=VIEW_CHARS,
    )
    named = changed_paths(given, FieldMask())
    copy_paths(given, state, (path for path in named if path.partition(".")[0] not in _APART))
    compaction = state.compaction_settings
    compaction.mode = compaction.mode or agent_pb2.COMPACTION_MODE_SLIDING_WINDOW
    compaction.sliding_window_percentage = compaction.sliding_window_percentage or 0.3
    compaction.clip_chars = compaction.clip_chars or 50_000
    _set_settings(state, given)
    return state


def _set_settings(state: Agent, given: Agent) -> None:
    """Take over what older clients say outside of the model's settings."""
    told = settings_told(given.model_settings, given.compat)
    copy_paths(told, state.model_settings, _set(told) - _set(given.model_settings))


def _set(message: Any) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


def change_of(sent: Agent, mask: FieldMask) -> Change:
    """Return what a masked update changes. Raises InvalidArgument."""
    paths = changed_paths(sent, mask)
    given = Agent()
    copy_paths(sent, given, paths)
    named = {path.partition(".")[0] for path in paths}
    if "compat.message_ids" in paths or given.compat.message_ids:
        raise InvalidArgument("messages in context are memory's; reset the messages instead", field="message_ids")
    edit, older = _editor(given, paths), given.compat
    if "model" in named or older.HasField("llm_config"):
        given.model = model_told(given.model, older)
        named.add("model")
    given.context_window_limit = given.context_window_limit or older.llm_config.context_window
    if "compat.embedding_config" in paths or older.HasField("embedding_config"):
        named.add("embedding")
    given.embedding = given.embedding or older.embedding_config.handle
    given.etag = sent.etag
    return Change(edit, given, frozenset(named))


def _editor(given: Agent, paths: Iterable[str]) -> Callable[[Agent], None]:
    """Return what writes a change into an agent. Without a name, instructions or a zone an agent keeps its own."""
    copied = [path for path in paths if path.partition(".")[0] not in _APART]
    copied += [name for name in ("name", "system") if given.HasField(name)]
    zone = zone_of(given.timezone) if "timezone" in paths else ""

    def edit(state: Agent) -> None:
        copy_paths(given, state, copied)
        if zone:
            state.timezone = zone
        _set_settings(state, given)

    return edit
