"""`letta agents`: list, make, show and remove agents."""

from __future__ import annotations

from typing import Annotated

import grpc
import typer

from letta.agent.v1 import agent_pb2, agent_service_pb2_grpc
from letta.agent.v1 import agent_service_pb2 as api
from letta.memory.v1 import block_pb2
from letta_cli import names
from letta_cli.connection import CALL_SECONDS, JsonOption, remote
from letta_cli.console import as_json, note, out, say, table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List, make, show and remove agents.")
AgentArgument = Annotated[str, typer.Argument(help="Id or name.", autocompletion=names.complete_agents)]
PERSONA = "A helpful agent that remembers."
SHOWN = [api.AGENT_INCLUDE_BLOCKS, api.AGENT_INCLUDE_TOOLS, api.AGENT_INCLUDE_TAGS]


@app.command("list")
@remote
def list_agents(
    channel: grpc.Channel,
    as_json_: JsonOption = False,
    limit: Annotated[int, typer.Option(min=1, help="Most agents to list.")] = 50,
) -> None:
    """List agents, newest first."""
    found = names.list_agents(channel, limit)
    if as_json_:
        as_json(found)
        return
    table(["id", "name", "model"], [[agent.id, agent.name, agent.model] for agent in found])


@app.command()
@remote
def create(
    channel: grpc.Channel,
    name: Annotated[str | None, typer.Option(help="Name; default: two random words.")] = None,
    model: Annotated[str | None, typer.Option(help="Handle of the model; default: the deployment's.")] = None,
    human: Annotated[str, typer.Option(help="What the agent knows of you.")] = "",
    persona: Annotated[str, typer.Option(help="Who the agent is.")] = PERSONA,
    as_json_: JsonOption = False,
) -> None:
    """Make an agent with the blocks `human` and `persona`."""
    request = new_agent(name, model, human, persona)
    agent = agent_service_pb2_grpc.AgentServiceStub(channel).CreateAgent(request, timeout=CALL_SECONDS).agent
    if as_json_:
        as_json(agent)
        return
    say(agent.id)


@app.command()
@remote
def show(channel: grpc.Channel, agent: AgentArgument, as_json_: JsonOption = False) -> None:
    """Show an agent and what it keeps in mind."""
    found = names.find_agent(channel, agent, SHOWN)
    if as_json_:
        as_json(found)
        return
    for name, value in (("id", found.id), ("name", found.name), ("model", found.model)):
        say(f"{name:6} {value}")
    say(f"tools  {', '.join(tool.name for tool in found.tools)}")
    for block in found.blocks:
        out.print()
        say(block.label, "bold")
        say(block.value)


@app.command()
@remote
def delete(channel: grpc.Channel, agent: AgentArgument) -> None:
    """Remove an agent and its memory."""
    found = names.find_agent(channel, agent)
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)
    stub.DeleteAgent(api.DeleteAgentRequest(agent_id=found.id), timeout=CALL_SECONDS)
    note(f"removed {found.name} ({found.id})")


def new_agent(name: str | None, model: str | None, human: str, persona: str) -> api.CreateAgentRequest:
    """Return the request for an agent with the blocks `human` and `persona`."""
    blocks = [
        block_pb2.Block(label="human", value=human, description="What I know of the person I talk with."),
        block_pb2.Block(label="persona", value=persona, description="Who I am."),
    ]
    return api.CreateAgentRequest(agent=agent_pb2.Agent(name=name, model=model), memory_blocks=blocks)
