"""`letta chat`: talk to an agent in the terminal."""

from __future__ import annotations

from typing import Annotated

import grpc
import typer

from letta.agent.v1 import agent_pb2, agent_service_pb2_grpc
from letta_cli import names
from letta_cli.agents import PERSONA, new_agent
from letta_cli.connection import CALL_SECONDS, remote
from letta_cli.console import fail, note
from letta_cli.talk import approvals
from letta_cli.talk.turns import ShownTurn, send

app = typer.Typer(add_completion=False)
AgentArgument = Annotated[
    str | None,
    typer.Argument(help="Id or name; default: the newest agent, or a new one.", autocompletion=names.complete_agents),
]


@app.command()
@remote
def chat(
    channel: grpc.Channel,
    address: str,
    agent: AgentArgument = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Say this and leave.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of a new agent.")] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Approve calls that wait for it, and leave.")] = False,
    deny: Annotated[str | None, typer.Option(metavar="WHY", help="Deny calls that wait, and leave.")] = None,
) -> None:
    """Talk to an agent; /help says what can be typed, /exit or Ctrl-D leaves."""
    if approve and deny is not None:
        fail("--approve and --deny exclude each other")
    found = _find_or_make(channel, agent, model)
    if message is None and not approve and deny is None:
        _hold(channel, address, found)
        return
    note(f"{found.name} ({found.id}), {found.model}")
    answer = (True, "") if approve else None if deny is None else (False, deny)
    _once(channel, found.id, message, answer)


def _hold(channel: grpc.Channel, address: str, found: agent_pb2.Agent) -> None:
    from letta_cli.talk.talks import Talk  # noqa: PLC0415 not needed for one message

    Talk(channel, address, found).hold()


def _once(channel: grpc.Channel, agent_id: str, message: str | None, answer: tuple[bool, str] | None) -> None:
    turn: ShownTurn | None = send(channel, agent_id, message) if message is not None else None
    while turn is None or turn.waits:
        found = approvals.waiting(channel, agent_id)
        if found is None:
            fail("nothing waits for approval")
        if answer is None:
            found.show()
            fail(f"the agent waits for approval; answer with `letta chat {agent_id} --approve`, or --deny WHY")
        turn = send(channel, agent_id, found.answered([answer] * len(found.calls)))


def _find_or_make(channel: grpc.Channel, wanted: str | None, model: str | None) -> agent_pb2.Agent:
    if wanted:
        return names.find_agent(channel, wanted)
    newest = names.list_agents(channel, 1) if model is None else []
    if newest:
        return newest[0]
    request = new_agent(None, model, "", PERSONA)
    return agent_service_pb2_grpc.AgentServiceStub(channel).CreateAgent(request, timeout=CALL_SECONDS).agent
