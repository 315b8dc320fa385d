"""`letta chat`: talk to an agent in the terminal."""

from __future__ import annotations

from typing import Annotated

import grpc
import typer

from letta.agent.v1 import agent_pb2, agent_service_pb2_grpc
from letta.agent.v1 import agent_service_pb2 as api
from letta_cli.agents import CALL_SECONDS, new_agent
from letta_cli.connection import DEFAULT_ADDRESS, AddressOption, connected
from letta_cli.console import err, fail, out
from letta_cli.turns import send
from letta_common.errors import AppError

LEAVE = frozenset({"/exit", "/quit", "/q"})


def chat(
    agent: Annotated[str | None, typer.Argument(help="Id or name; default: the newest agent, or a new one.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Say this and leave.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of a new agent.")] = None,
    address: AddressOption = DEFAULT_ADDRESS,
) -> None:
    """Talk to an agent. Leave with /exit or Ctrl-D."""
    with connected(address) as channel:
        found = _find_or_make(channel, agent, model)
        err.print(f"[dim]{found.name} ({found.id}), {found.model}[/dim]")
        if message is not None:
            send(channel, found.id, message)
            return
        _converse(channel, found.id)


def _converse(channel: grpc.Channel, agent_id: str) -> None:
    while True:
        try:
            text = out.input("[bold]you>[/bold] ").strip()
        except (EOFError, KeyboardInterrupt):
            out.print()
            return
        if text in LEAVE:
            return
        if not text:
            continue
        try:
            send(channel, agent_id, text)
        except KeyboardInterrupt:
            out.print("\n[dim]stopped[/dim]")
        except AppError as error:
            err.print(f"[red]error:[/red] {error}")


def _find_or_make(channel: grpc.Channel, wanted: str | None, model: str | None) -> agent_pb2.AgentState:
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)
    if wanted and wanted.startswith("agent-"):
        return stub.GetAgent(api.GetAgentRequest(agent_id=wanted), timeout=CALL_SECONDS).agent
    found = stub.ListAgents(api.ListAgentsRequest(name=wanted, limit=1), timeout=CALL_SECONDS).agents
    if found and (wanted or model is None):
        return found[0]
    if wanted:
        fail(f"there is no agent named `{wanted}`; `letta agents list` shows them")
    request = new_agent(None, model, "", "A helpful agent that remembers.")
    return stub.CreateAgent(request, timeout=CALL_SECONDS).agent
