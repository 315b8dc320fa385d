"""A talk: what the user types goes to the agent, or is a command that begins with `/`. No error ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import grpc

from letta.agent.v1 import agent_pb2, agent_service_pb2_grpc, run_pb2
from letta.agent.v1 import agent_service_pb2 as api
from letta.llm.v1 import model_service_pb2, model_service_pb2_grpc
from letta.memory.v1 import message_service_pb2, message_service_pb2_grpc
from letta_cli import names
from letta_cli.agents import PERSONA, SHOWN, new_agent
from letta_cli.connection import CALL_SECONDS, explained_failures
from letta_cli.console import failed, note, say, table
from letta_cli.talk import approvals, editor
from letta_cli.talk.turns import ShownTurn, send, short
from letta_common.errors import AppError

_MESSAGES = 10


class Talk:
    """A conversation with one agent at a time."""

    def __init__(self, channel: grpc.Channel, address: str, agent: agent_pb2.Agent) -> None:
        self._channel = channel
        self._address = address
        self._agent = agent
        self._agents = agent_service_pb2_grpc.AgentServiceStub(channel)
        self._over = False
        self._commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "/help": ("what can be typed here", self._help),
            "/agents": ("list agents", self._list),
            "/agent": ("talk to another agent: /agent NAME", self._turn_to),
            "/new": ("make an agent and talk to it: /new [NAME]", self._new),
            "/memory": ("what the agent keeps in mind", self._memory),
            "/tools": ("the tools of the agent", self._tools),
            "/model": ("the agent's model, or another: /model [HANDLE]", self._model),
            "/models": ("models that can be chosen", self._models),
            "/messages": ("the last messages: /messages [NUMBER]", self._messages),
            "/approvals": ("calls that wait for your word", self._approvals),
            "/exit": ("leave; Ctrl-D does as well", self._leave),
        }
        self._editor = editor.fitting({name: what for name, (what, _) in self._commands.items()})

    def hold(self) -> None:
        """Talk until the user leaves."""
        note(f"{self._agent.name} ({self._agent.id}), {self._agent.model}; /help says what can be typed")
        self._safely(self._approvals_left)
        while not self._over:
            text = self._read()
            if text is None:
                return
            if text.strip():
                self._safely(partial(self._take, text.strip()))

    def _read(self) -> str | None:
        while True:
            try:
                return self._editor.read("you> ")
            # It stops an answer, so one that comes too late for that must not end the talk.
            except KeyboardInterrupt:
                note("Ctrl-D or /exit leaves")

    def _safely(self, work: Callable[[], None]) -> None:
        """Do something; whatever fails is said, and the talk goes on."""
        try:
            with explained_failures(self._address):
                work()
        except KeyboardInterrupt:
            note("stopped")
        except (AppError, OSError) as error:
            failed(str(error))

    def _take(self, text: str) -> None:
        # So that a message can begin with a slash.
        if text.startswith("//"):
            self._send(text[1:])
        elif text.startswith("/"):
            self._command(text)
        else:
            self._send(text)

    def _command(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        known = {**self._commands, "/quit": self._commands["/exit"], "/q": self._commands["/exit"]}
        if name not in known:
            note(f"there is no command {name}; /help lists them, and //{text[1:]} would send it as text", "yellow")
            return
        known[name][1](rest.strip())

    def _send(self, given: str | Sequence[run_pb2.InputMessage]) -> None:
        turn: ShownTurn = send(self._channel, self._agent.id, given)
        while turn.waits:
            found = approvals.waiting(self._channel, self._agent.id)
            answers = approvals.ask(found, self._editor.read) if found else None
            if answers is None:
                return
            turn = send(self._channel, self._agent.id, answers)

    def _approvals_left(self) -> None:
        if approvals.waiting(self._channel, self._agent.id) is not None:
            note("calls of this agent wait for your word", "yellow")
            self._approvals("")

    def _approvals(self, _: str) -> None:
        found = approvals.waiting(self._channel, self._agent.id)
        if found is None:
            note("nothing waits")
            return
        answers = approvals.ask(found, self._editor.read)
        if answers is not None:
            self._send(answers)

    def _help(self, _: str) -> None:
        width = max(map(len, self._commands))
        for name, (what, _unused) in self._commands.items():
            say(f"  {name:{width}}  {what}")
        say("Enter sends, Alt-Enter begins another line, the arrows go through what was typed before, Ctrl-C stops.")

    def _leave(self, _: str) -> None:
        self._over = True

    def _list(self, _: str) -> None:
        found = names.list_agents(self._channel, 50)
        table(["id", "name", "model"], [[agent.id, agent.name, agent.model] for agent in found])

    def _turn_to(self, name: str) -> None:
        if not name:
            note("say which: /agent NAME", "yellow")
            return
        self._agent = names.find_agent(self._channel, name)
        note(f"{self._agent.name} ({self._agent.id}), {self._agent.model}")
        self._approvals_left()

    def _new(self, name: str) -> None:
        request = new_agent(name or None, None, "", PERSONA)
        self._agent = self._agents.CreateAgent(request, timeout=CALL_SECONDS).agent
        note(f"made {self._agent.name} ({self._agent.id}), {self._agent.model}")

    def _memory(self, _: str) -> None:
        for block in names.find_agent(self._channel, self._agent.id, SHOWN).blocks:
            say(block.label, "bold")
            say(block.value or "(empty)")

    def _tools(self, _: str) -> None:
        agent = names.find_agent(self._channel, self._agent.id, SHOWN)
        table(["name", "description"], [[tool.name, short(tool.description)] for tool in agent.tools])

    def _model(self, handle: str) -> None:
        if handle:
            change = api.UpdateAgentRequest(agent_id=self._agent.id, agent=agent_pb2.Agent(model=handle))
            self._agent = self._agents.UpdateAgent(change, timeout=CALL_SECONDS).agent
        say(self._agent.model)

    def _models(self, _: str) -> None:
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel)
        for model in stub.ListModels(model_service_pb2.ListModelsRequest(), timeout=CALL_SECONDS).models:
            say(model.handle)

    def _messages(self, number: str) -> None:
        stub = message_service_pb2_grpc.MessageServiceStub(self._channel)
        limit = int(number) if number.isdecimal() and 0 < int(number) <= 1000 else _MESSAGES
        request = message_service_pb2.ListAgentMessagesRequest(
            agent_id=self._agent.id, conversation_id="default", limit=limit
        )
        for message in sorted(stub.ListAgentMessages(request, timeout=CALL_SECONDS).messages, key=lambda one: one.id):
            if message.HasField("user_message"):
                say(f"you> {message.user_message.text}", "bold")
            elif message.HasField("assistant_message"):
                say(message.assistant_message.text)
            elif message.HasField("tool_call_message"):
                call = message.tool_call_message.tool_call
                say(f"  > {call.name} {short(call.arguments)}", "cyan")
