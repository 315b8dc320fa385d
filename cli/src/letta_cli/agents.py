"""`letta agents`: list, make, show and remove agents."""

from __future__ import annotations

from typing import Annotated

import typer

from letta.agent.v1 import agent_service_pb2 as api
from letta.agent.v1 import agent_service_pb2_grpc
from letta.memory.v1 import block_pb2
from letta_cli.connection import DEFAULT_ADDRESS, AddressOption, JsonOption, connected
from letta_cli.console import as_json, err, out, table

CALL_SECONDS = 30.0
app = typer.Typer(no_args_is_help=True, help="List, make, show and remove agents.")


@app.command("list")
def list_agents(
    address: AddressOption = DEFAULT_ADDRESS,
    as_json_: JsonOption = False,
    limit: Annotated[int, typer.Option(help="Most agents to list.")] = 50,
) -> None:
    """List agents, newest first."""
    with connected(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        found = stub.ListAgents(api.ListAgentsRequest(limit=limit), timeout=CALL_SECONDS).agents
    if as_json_:
        as_json(found)
        return
    table(["id", "name", "model"], [[agent.id, agent.name, agent.model] for agent in found])


@app.command()
def create(
    name: Annotated[str | None, typer.Option(help="Name; default: two random words.")] = None,
    model: Annotated[str | None, typer.Option(help="Handle of the model; default: the deployment's.")] = None,
    human: Annotated[str, typer.Option(help="What the agent knows of you.")] = "",
    persona: Annotated[str, typer.Option(help="Who the agent is.")] = "A helpful agent that remembers.",
    address: AddressOption = DEFAULT_ADDRESS,
    as_json_: JsonOption = False,
) -> None:
    """Make an agent with the blocks `human` and `persona`."""
    request = new_agent(name, model, human, persona)
    with connected(address) as channel:
        agent = agent_service_pb2_grpc.AgentServiceStub(channel).CreateAgent(request, timeout=CALL_SECONDS).agent
    if as_json_:
        as_json(agent)
        return
    out.print(agent.id)


@app.command()
def show(agent_id: str, address: AddressOption = DEFAULT_ADDRESS, as_json_: JsonOption = False) -> None:
    """Show an agent and what it keeps in mind."""
    include = [api.AGENT_INCLUDE_BLOCKS, api.AGENT_INCLUDE_TOOLS, api.AGENT_INCLUDE_TAGS]
    with connected(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        agent = stub.GetAgent(api.GetAgentRequest(agent_id=agent_id, include=include), timeout=CALL_SECONDS).agent
    if as_json_:
        as_json(agent)
        return
    table(["", ""], [["id", agent.id], ["name", agent.name], ["model", agent.model]])
    table(["tools"], [[", ".join(tool.name for tool in agent.tools)]])
    for block in agent.blocks:
        out.print(f"\n[bold]{block.label}[/bold]")
        out.print(block.value, markup=False)


@app.command()
def delete(agent_id: str, address: AddressOption = DEFAULT_ADDRESS) -> None:
    """Remove an agent and its memory."""
    with connected(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        stub.DeleteAgent(api.DeleteAgentRequest(agent_id=agent_id), timeout=CALL_SECONDS)
    err.print(f"removed {agent_id}")


def new_agent(name: str | None, model: str | None, human: str, persona: str) -> api.CreateAgentRequest:
    """Return the request for an agent with the blocks `human` and `persona`."""
    blocks = [
        block_pb2.Block(label="human", value=human, description="What I know of the person I talk with."),
        block_pb2.Block(label="persona", value=persona, description="Who I am."),
    ]
    return api.CreateAgentRequest(name=name, model=model, memory_blocks=blocks)
