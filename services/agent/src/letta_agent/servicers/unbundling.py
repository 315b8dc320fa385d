"""From a document to the agents that are to be made of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from letta.agent.v1 import agent_service_pb2, bundle_service_pb2
from letta.agent.v1 import bundle_pb2 as pb
from letta.common.v1.agent_type_pb2 import AgentType
from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.folder_service_pb2 import CreateFolderRequest
from letta.tools.v1 import tool_pb2
from letta_agent.domain.bundles.importer import AgentDocument, NewAgent, NewFolder
from letta_agent.domain.bundles.messages import read
from letta_agent.domain.peers.tools import Tool
from letta_agent.servicers.bundling import base_name, like
from letta_agent.servicers.drafts import draft_of
from letta_common.errors import InvalidArgument
from letta_common.values.repeats import Digests

ImportAgentsRequest = bundle_service_pb2.ImportAgentsRequest
_HEARTBEAT = "request_heartbeat"
"""Argument that a server adds to the schemas of tools and no function has."""
_COPY = "_copy"
_NAME = 512  # the most characters of an agent's name


def document_of(request: ImportAgentsRequest, now: datetime, digests: Digests) -> AgentDocument:
    """Return what a request asks to make. Raises InvalidArgument, which says where the document is wrong."""
    bundle = request.bundle
    for name in ("agents", "blocks", "tools", "sources", "files"):
        _require_once(name, (each.id for each in getattr(bundle, name)))
    _require_once("tools", (tool.name for tool in bundle.tools if tool.name and _comes_along(tool)))
    _require_known(bundle)
    return AgentDocument(
        agents=[_agent(given, place, request, now, digests) for place, given in enumerate(bundle.agents)],
        blocks={block.id: like(Block(), block) for block in bundle.blocks},
        folders={folder.id: _folder(folder, request) for folder in bundle.sources},
        tools={tool.id: _tool(tool) for tool in bundle.tools if _comes_along(tool)},
        names={tool.id: tool.name for tool in bundle.tools if not _comes_along(tool)},
        overwrite=not request.HasField("override_existing_tools") or request.override_existing_tools,
        request_id=request.request_id,
    )


def omitted_of(bundle: pb.AgentBundle) -> list[str]:
    """Return what of a document no import makes."""
    left = [f"{group.id}: groups are not made in this release" for group in bundle.groups]
    left += [f"{file.id}: the document has no text of it" for file in bundle.files if not file.HasField("content")]
    left += [f"{agent.id}: no sleep-time agent is made for it" for agent in bundle.agents if agent.enable_sleeptime]
    for agent in bundle.agents:
        if apart := len(agent.messages) - len(_context(agent)):
            left.append(f"{agent.id}: {apart} messages that were not in context")
    return left


def _require_once(name: str, ids: Iterable[str]) -> None:
    for found, number in Counter(ids).items():
        if number > 1:
            raise InvalidArgument(f"{name}: {found} is there {number} times", field=f"bundle.{name}")


def _require_known(bundle: pb.AgentBundle) -> None:
    """Raise InvalidArgument for an id of something that the document does not have."""
    tools, blocks = {each.id for each in bundle.tools}, {each.id: each.label for each in bundle.blocks}
    folders = {each.id for each in bundle.sources}
    for file in bundle.files:
        _require(f"files.{file.id}", [file.source_id], folders)
    for place, agent in enumerate(bundle.agents):
        here, messages = f"agents.{place}", [message.id for message in agent.messages]
        _require_once(f"{here}.messages", messages)
        _require(f"{here}.tool_ids", agent.tool_ids, tools)
        _require(f"{here}.block_ids", agent.block_ids, blocks)
        labels = [*(blocks[block_id] for block_id in agent.block_ids), *(block.label for block in agent.memory_blocks)]
        _require_once(f"{here}.block_ids", labels)
        _require(f"{here}.source_ids", agent.source_ids, folders)
        _require(f"{here}.in_context_message_ids", agent.in_context_message_ids, {*messages})


def _require(where: str, ids: Iterable[str], known: Container[str]) -> None:
    for each in ids:
        if each not in known:
            raise InvalidArgument(f"{where}: the document has no {each}", field=f"bundle.{where}")


def _agent(
    given: pb.BundledAgent, place: int, request: ImportAgentsRequest, now: datetime, digests: Digests
) -> NewAgent:
    asked = agent_service_pb2.CreateAgentRequest(
        tools=given.tools,
        memory_blocks=given.memory_blocks,
        include_base_tools=False,
        include_base_tool_rules=False,
        request_id=f"{request.request_id}/{given.id}" if request.request_id else "",
    )
    agent = like(asked.agent, given)
    told = agent.compat.llm_config
    told.CopyFrom(given.llm_config)
    if given.HasField("model_settings"):  # they say all that the other says of it, or leave it to the deployment
        told.Clear()
        told.handle, told.context_window = given.llm_config.handle, given.llm_config.context_window
    agent.name = _name(given, place, request)
    agent.model = request.model or given.model
    agent.embedding = (
        request.embedding or request.compat_headers.embedding or given.embedding or given.embedding_config.handle
    )
    if request.HasField("project_id"):
        agent.project_id = request.project_id
    agent.secret_values.update({**given.secrets, **request.secrets})
    draft = draft_of(asked, now, digests)
    thinks_aloud = draft.state.agent_type != AgentType.AGENT_TYPE_LETTA_V1_AGENT
    messages = () if request.strip_messages else tuple(read(_context(given), thinks_aloud=thinks_aloud))
    # The request is known by all of it: each of its agents is made by what it says of all.
    known = digests.of(request) if request.request_id else b""
    draft = replace(draft, messages=messages, request_hash=known)
    return NewAgent(given.id, draft, given.tool_ids, given.block_ids, given.source_ids)


def _context(given: pb.BundledAgent) -> list[pb.BundledMessage]:
    """Return the messages that were in context, in its order: all, where the document does not say."""
    messages = {message.id: message for message in given.messages}
    return [messages[message_id] for message_id in dict.fromkeys(given.in_context_message_ids or messages)]


def _name(given: pb.BundledAgent, place: int, request: ImportAgentsRequest) -> str:
    if request.name and not place:
        return request.name
    copied = given.name and request.compat.append_copy_suffix
    return f"{given.name[: _NAME - len(_COPY)]}{_COPY}" if copied else given.name


def _folder(given: pb.BundledFolder, request: ImportAgentsRequest) -> NewFolder:
    asked = like(CreateFolderRequest(), given)
    asked.embedding = (
        request.embedding or request.compat_headers.embedding or given.embedding or given.embedding_config.handle
    )
    return NewFolder(asked, [*_texts(request.bundle.files, given.id)])


def _texts(files: Iterable[pb.BundledFile], folder_id: str) -> Iterator[tuple[str, str]]:
    for file in files:
        if file.source_id == folder_id and file.HasField("content"):
            # A name is never a path here, whatever the document says.
            yield base_name(file.file_name or file.original_file_name) or file.id, file.content


def _comes_along(tool: pb.BundledTool) -> bool:
    """Say whether the document has all that a tool is made of."""
    return tool.tool_type in {tool_pb2.TOOL_TYPE_CUSTOM, tool_pb2.TOOL_TYPE_UNSPECIFIED}


def _tool(given: pb.BundledTool) -> Tool:
    tool = like(Tool(), given)
    tool.ClearField("metadata")  # what the registry noted is another registry's
    if tool.source_code and tool.source_type == tool_pb2.TOOL_SOURCE_TYPE_JSON:
        tool.source_type = tool_pb2.TOOL_SOURCE_TYPE_PYTHON
    if tool.json_schema.parameters_schema:
        tool.json_schema.parameters_schema = _without_heartbeat(tool.json_schema.parameters_schema)
    return tool


def _without_heartbeat(schema: str) -> str:
    found = json.loads(schema)
    if not isinstance(found, dict) or _HEARTBEAT not in (found.get("properties") or {}):
        return schema
    del found["properties"][_HEARTBEAT]
    found["required"] = [name for name in found.get("required") or [] if name != _HEARTBEAT]
    return json.dumps(found, ensure_ascii=False)
