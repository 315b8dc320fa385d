"""Agents and keys by id or by name, wherever one is taken."""

from __future__ import annotations

from typing import Any

import grpc

from letta.agent.v1 import agent_pb2, agent_service_pb2_grpc
from letta.agent.v1 import agent_service_pb2 as api
from letta.auth.v1 import api_key_pb2, api_key_service_pb2, api_key_service_pb2_grpc
from letta_cli.connection import CALL_SECONDS, DEFAULT_ADDRESS, ServerAddress, connected
from letta_common.errors import AgentNotFound, APIKeyNotFound, AppError, InvalidArgument

# A name may begin like an id: the server then finds no such agent, or refuses the form of the id.
_MAY_BE_A_NAME = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}
_PAGE = 200
_MOST_SHOWN = 10
# The shell waits for it while the user types.
_COMPLETION_SECONDS = 1.0


def find_agent(
    channel: grpc.Channel, wanted: str, include: list[api.AgentInclude.ValueType] | None = None
) -> agent_pb2.Agent:
    """Return the agent of an id or a name. Raises AgentNotFound, and InvalidArgument when several have the name."""
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)
    if wanted.startswith("agent-"):
        try:
            request = api.GetAgentRequest(agent_id=wanted, include=include)
            return stub.GetAgent(request, timeout=CALL_SECONDS).agent
        except grpc.RpcError as error:
            failed: Any = error  # every RpcError of a call is a grpc.Call too
            if failed.code() not in _MAY_BE_A_NAME:
                raise
    listing = api.ListAgentsRequest(name=wanted, limit=_MOST_SHOWN, include=include)
    found = stub.ListAgents(listing, timeout=CALL_SECONDS).agents
    if not found:
        raise AgentNotFound(f"there is no agent named `{wanted}`; `letta agents list` shows them")
    return found[_only("agents", wanted, [agent.id for agent in found])]


def find_key(channel: grpc.Channel, wanted: str) -> str:
    """Return the id of a key by its id or name. Raises APIKeyNotFound; InvalidArgument when several have the name."""
    every = list_keys(channel)
    ids = [key.id for key in every if wanted == key.id] or [key.id for key in every if key.name == wanted]
    if not ids:
        raise APIKeyNotFound(f"there is no key named `{wanted}`; `letta keys list` shows them")
    return ids[_only("keys", wanted, ids)]


def list_keys(channel: grpc.Channel) -> list[api_key_pb2.APIKey]:
    """Return every key, newest first."""
    stub = api_key_service_pb2_grpc.APIKeyServiceStub(channel)
    every: list[api_key_pb2.APIKey] = []
    while True:
        after = every[-1].id if every else ""
        request = api_key_service_pb2.ListAPIKeysRequest(limit=_PAGE, after=after)
        page = stub.ListAPIKeys(request, timeout=CALL_SECONDS).api_keys
        # An empty page ends the list: how many rows a page has is the server's to decide.
        if not page:
            return every
        every.extend(page)


def list_agents(channel: grpc.Channel, limit: int) -> list[agent_pb2.Agent]:
    """Return the newest agents, page by page."""
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)
    every: list[agent_pb2.Agent] = []
    while len(every) < limit:
        after = every[-1].id if every else None
        request = api.ListAgentsRequest(limit=min(_PAGE, limit - len(every)), after=after)
        page = stub.ListAgents(request, timeout=CALL_SECONDS).agents
        if not page:
            break
        every.extend(page)
    return every


def complete_agents(incomplete: str) -> list[tuple[str, str]]:
    """Return names of agents that begin so, with their ids, for the shell; nothing when no server answers soon."""
    try:
        with connected(ServerAddress(DEFAULT_ADDRESS)) as channel:
            stub = agent_service_pb2_grpc.AgentServiceStub(channel)
            agents = stub.ListAgents(api.ListAgentsRequest(limit=_PAGE), timeout=_COMPLETION_SECONDS).agents
    except AppError:
        return []
    return [(agent.name, agent.id) for agent in agents if agent.name.startswith(incomplete)]


def _only(what: str, name: str, ids: list[str]) -> int:
    if len(ids) > 1:
        raise InvalidArgument(f"{len(ids)} {what} are named `{name}`; say which by its id: {', '.join(ids)}")
    return 0
