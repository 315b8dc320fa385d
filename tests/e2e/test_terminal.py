"""The command on a real terminal: a talk survives errors, asks for approval, and remembers what was typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.callers import SCHEMAS
from tests.servers import RunningServer, free_port
from tests.support.terminals import Terminal, talking


@pytest.fixture
def agent(http: httpx.Client) -> Iterator[str]:
    body = {"name": "terminal", "model": "builtin/rules", "memory_blocks": [{"label": "human", "value": "Name: Sam."}]}
    made = http.post("/v1/agents/", json=body).json()["id"]
    yield made
    http.delete(f"/v1/agents/{made}")


@pytest.fixture
def talk(server: RunningServer, agent: str, tmp_path: Path) -> Iterator[Terminal]:
    with talking(agent, server.grpc_address, tmp_path) as terminal:
        yield terminal


def test_a_talk_answers_and_ends(talk: Terminal):
    talk.type("What is my name?")
    talk.until("Sam")
    talk.until("you>")
    talk.type("/exit")
    talk.end()
    assert talk.child.exitstatus == 0


def test_what_can_be_typed_is_listed(talk: Terminal):
    talk.type("/help")
    for name in ("/agents", "/memory", "/model", "/approvals", "/exit"):
        talk.until(name)
    talk.type("/memory")
    talk.until("Name: Sam.")
    talk.type("/nonsense")
    talk.until("there is no command /nonsense")


def test_an_error_does_not_end_the_talk(talk: Terminal, http: httpx.Client, agent: str):
    talk.type("/model builtin/nothing")
    talk.until("error:")
    talk.type("What is my name?")
    talk.until("Sam")
    http.delete(f"/v1/agents/{agent}")
    talk.type("Are you there?")
    talk.until("error:")
    talk.until("you>")
    talk.type("/new other")
    talk.until("made other")
    talk.until("you>")
    talk.child.send("\x04")
    talk.end()
    assert talk.child.exitstatus == 0


def test_brackets_of_an_answer_are_shown(talk: Terminal):
    talk.type("[red]My name is [/nothing] Sam.")
    talk.until("you>")
    talk.type("/messages 20")
    talk.until("[red]My name is [/nothing] Sam.")
    talk.until("you>")
    assert talk.child.isalive()


def test_what_was_typed_before_comes_back(server: RunningServer, agent: str, tmp_path: Path):
    for typed, keys in (("/memory", "/memory\r"), ("/memory", "\x1b[A\r")):
        terminal = Terminal("chat", agent, "--address", server.grpc_address, home=tmp_path)
        terminal.until("you>")
        terminal.child.send(keys)
        terminal.until("Name: Sam.")
        terminal.child.send("\x04")
        terminal.end()
        assert typed in (tmp_path / "chat_history").read_text()
    assert (tmp_path / "chat_history").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("answer", "kept"), [("y", True), ("no it is private", False)])
def test_a_call_waits_for_the_users_word(http: httpx.Client, agent: str, talk: Terminal, answer: str, kept: bool):
    path = f"/v1/agents/{agent}/tools/approval/memory_insert"
    assert http.patch(path, json={"requires_approval": True}).status_code == 200
    talk.type('CALL memory_insert {"label": "human", "new_string": "Likes tea."}')
    talk.until("? memory_insert")
    talk.until("Likes tea.")
    talk.until("or no and why>")
    talk.type(answer)
    talk.until("you>")

    block = http.get(f"/v1/agents/{agent}/core-memory/blocks/human").json()["value"]
    assert ("Likes tea." in block) is kept


def test_a_call_that_was_left_waiting_is_asked_for_at_the_next_start(
    server: RunningServer, http: httpx.Client, agent: str, tmp_path: Path
):
    http.patch(f"/v1/agents/{agent}/tools/approval/memory_insert", json={"requires_approval": True})
    text = 'CALL memory_insert {"label": "human", "new_string": "Likes tea."}'
    asked = Terminal("chat", agent, "-m", text, "--address", server.grpc_address, home=tmp_path)
    assert "--approve" in asked.end()
    assert asked.child.exitstatus == 1
    terminal = Terminal("chat", agent, "--address", server.grpc_address, home=tmp_path)
    terminal.until("? memory_insert")
    terminal.until("or no and why>")
    terminal.child.send("\x04")
    terminal.until("it goes on waiting")
    terminal.until("you>")
    terminal.child.send("\x04")
    terminal.end()

    done = Terminal("chat", agent, "--approve", "--address", server.grpc_address, home=tmp_path)
    done.end()
    assert done.child.exitstatus == 0
    assert "Likes tea." in http.get(f"/v1/agents/{agent}/core-memory/blocks/human").json()["value"]


@pytest.mark.parametrize("columns", [30, 80])
def test_ids_are_whole_on_a_narrow_terminal(server: RunningServer, agent: str, tmp_path: Path, columns: int):
    shown = Terminal("agents", "list", "--address", server.grpc_address, home=tmp_path, columns=columns).end()
    assert agent in shown.split()


def test_the_administrators_key_stands_on_one_line(databases, tmp_path: Path):
    ports = ["--port", str(free_port()), "--grpc-port", str(free_port())]
    terminal = Terminal("server", *ports, home=tmp_path, LETTA_DATABASE_URL=databases.clone(SCHEMAS))
    terminal.until("starting the services")
    terminal.until("shown this once:")
    terminal.child.expect(r"\n(lk_\S+)\r\n")
    key = terminal.child.match.group(1)
    terminal.until("gRPC  127.0.0.1")
    answer = httpx.get(
        f"http://127.0.0.1:{ports[1]}/v1/agents/", headers={"authorization": f"Bearer {key}"}, timeout=30
    )
    terminal.child.sendintr()
    terminal.end()

    assert answer.status_code == 200
