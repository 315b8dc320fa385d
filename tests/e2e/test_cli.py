"""The command, run as a user runs it: results on stdout, one clear sentence and status 1 for what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.callers import SCHEMAS
from tests.servers import RunningServer, free_port, letta_server

NOBODY = "postgresql://nobody:secret@127.0.0.1:1/nothing"


def letta(*arguments: str, home: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LETTA", "OPENAI", "ANTHROPIC"))}
    environment = {**kept, "COLUMNS": "200", **variables} | ({"LETTA_HOME": str(home)} if home else {})
    command = [sys.executable, "-m", "letta_cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Check that a command failed as it should, and return its sentence."""
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1, done.stderr
    assert last.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    return last.removeprefix("error: ")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def address(server: RunningServer) -> str:
    return server.grpc_address


@pytest.fixture
def agent(address: str) -> str:
    made = letta("agents", "create", "--model", "builtin/rules", "--human", "Name: Sam.", "--address", address)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.mark.parametrize("word", ["server", "up", "demo", "chat", "agents", "keys", "db"])
def test_help_names_every_command(word):
    done = letta("--help")
    assert done.returncode == 0
    assert word in done.stdout


@pytest.mark.parametrize("command", [["server"], ["up"], ["chat"], ["agents", "create"], ["keys", "create"]])
def test_every_command_explains_itself(command):
    done = letta(*command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_an_unknown_option_is_a_usage_error():
    assert letta("agents", "list", "--nonsense").returncode == 2


def test_an_agent_is_made_and_shown(agent, address):
    assert agent.startswith("agent-")
    shown = letta("agents", "show", agent, "--address", address)
    assert shown.returncode == 0
    assert "builtin/rules" in shown.stdout
    assert "Name: Sam." in shown.stdout


def test_agents_are_json_when_asked(agent, address):
    one = json.loads(letta("agents", "show", agent, "--json", "--address", address).stdout)
    every = json.loads(letta("agents", "list", "--json", "--address", address).stdout)

    assert one["id"] == agent
    assert {"human", "persona"} == {block["label"] for block in one["blocks"]}
    assert agent in [each["id"] for each in every]


def test_a_new_agent_is_json_when_asked(address):
    made = json.loads(letta("agents", "create", "--name", "json-one", "--json", "--address", address).stdout)
    assert made["name"] == "json-one"


def test_a_list_is_as_long_as_asked(agent, address):
    letta("agents", "create", "--address", address)
    assert len(json.loads(letta("agents", "list", "--limit", "1", "--json", "--address", address).stdout)) == 1


def test_a_removed_agent_is_gone(agent, address):
    assert letta("agents", "delete", agent, "--address", address).returncode == 0
    assert agent in refused(letta("agents", "show", agent, "--address", address))


def test_a_message_is_answered(agent, address):
    told = letta("chat", agent, "-m", "What is my name?", "--address", address)
    assert told.returncode == 0, told.stderr
    assert "Sam" in told.stdout


def test_the_address_may_come_from_the_environment(agent, address):
    assert letta("agents", "show", agent, LETTA_AGENT_ADDRESS=address).returncode == 0


def test_chat_with_an_unknown_name_says_so(address):
    assert "no agent named" in refused(letta("chat", "nobody", "-m", "Hi.", "--address", address))


def test_a_model_that_does_not_exist_is_refused(address):
    assert "nothing" in refused(letta("agents", "create", "--model", "builtin/nothing", "--address", address))


def test_keys_are_made_listed_and_removed(address):
    made = letta("keys", "create", "laptop", "--scope", "read", "--address", address)
    assert made.stdout.startswith("lk_")
    found = json.loads(letta("keys", "list", "--json", "--address", address).stdout)
    key = next(one for one in found if one["name"] == "laptop")

    secret = made.stdout.strip()
    assert letta("agents", "list", "--address", address, LETTA_API_KEY=secret).returncode == 0
    assert "write" in refused(letta("agents", "create", "--address", address, LETTA_API_KEY=secret))
    assert letta("keys", "delete", key["id"], "--address", address).returncode == 0


def test_a_wrong_key_is_refused(address):
    refused(letta("agents", "list", "--address", address, LETTA_API_KEY="lk_wrong_wrong"))


@pytest.mark.parametrize("command", ["show", "delete"])
def test_a_name_stands_for_an_id(address, command):
    letta("agents", "create", "--name", f"named-{command}", "--address", address)
    done = letta("agents", command, f"named-{command}", "--address", address)
    assert done.returncode == 0, done.stderr
    assert f"named-{command}" in done.stdout + done.stderr


def test_a_name_of_several_is_refused_with_their_ids(address):
    ids = [letta("agents", "create", "--name", "twin", "--address", address).stdout.strip() for _ in range(2)]
    said = refused(letta("agents", "show", "twin", "--address", address))
    assert all(one in said for one in ids)


def test_a_key_is_removed_by_its_name(address):
    letta("keys", "create", "by-name", "--address", address)
    assert letta("keys", "delete", "by-name", "--address", address).returncode == 0
    assert "no key named" in refused(letta("keys", "delete", "by-name", "--address", address))


def test_memory_with_markup_is_shown_as_it_is(address):
    text = "[red]x[bold] [/nothing]"
    made = letta("agents", "create", "--human", text, "--address", address).stdout.strip()
    done = letta("agents", "show", made, "--address", address)
    assert done.returncode == 0, done.stderr
    assert text in done.stdout
    assert letta("chat", made, "-m", "Hi [/red] there.", "--address", address).returncode == 0


@pytest.mark.parametrize("columns", ["20", "60", "80"])
def test_ids_are_whole_in_a_pipe(agent, address, columns):
    assert agent in letta("agents", "list", "--address", address, COLUMNS=columns).stdout.split()


@pytest.mark.parametrize("program", ["letta", "letta-server"])
def test_both_names_of_the_command_say_their_version(program):
    command = [str(Path(sys.executable).with_name(program)), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split()[:2] == [program, version("letta-cli")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell):
    names = {"bash": "complete_bash", "zsh": "complete_zsh", "fish": "complete_fish"}
    program = str(Path(sys.executable).with_name("letta"))
    variables = {"_LETTA_COMPLETE": names[shell], "COMP_WORDS": "letta ag", "COMP_CWORD": "1"}
    variables |= {"_TYPER_COMPLETE_ARGS": "letta ag", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environment = {**os.environ, **variables}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "agents" in done.stdout
    assert "keys" not in done.stdout


@pytest.mark.parametrize("command", [["agents", "list"], ["keys", "list"], ["chat", "-m", "Hi."]])
def test_without_a_server_a_command_says_how_to_start_one(command):
    assert "letta server" in refused(letta(*command, "--address", "127.0.0.1:1"))


def test_a_taken_port_of_grpc_ends_the_server(databases, taken, tmp_path):
    url = databases.clone(SCHEMAS)
    ports = ["--grpc-port", str(taken), "--port", str(free_port())]
    done = letta("server", "--dev", *ports, home=tmp_path, LETTA_DATABASE_URL=url)
    assert f"127.0.0.1:{taken}" in refused(done)


def test_a_taken_port_of_http_ends_the_server(databases, taken, tmp_path):
    url = databases.clone(SCHEMAS)
    ports = ["--grpc-port", str(free_port()), "--port", str(taken)]
    done = letta("server", "--dev", *ports, home=tmp_path, LETTA_DATABASE_URL=url)
    assert f"127.0.0.1:{taken}" in refused(done)


@pytest.mark.parametrize("command", [["server", "--dev"], ["db", "upgrade"], ["up", "--dev"]])
def test_an_unreachable_database_ends_the_command(command, tmp_path):
    assert "database" in refused(letta(*command, home=tmp_path, LETTA_DATABASE_URL=NOBODY))


MALFORMED = ["nonsense", "mysql://u:secret@h/d", "postgresql://u:secret@h:port/d", "postgresql://u:secret@h/d?secret=1"]


@pytest.mark.parametrize("url", MALFORMED)
@pytest.mark.parametrize("command", [["server", "--dev"], ["up"], ["db", "upgrade"], ["keys", "bootstrap"]])
def test_a_malformed_address_of_the_database_is_said_before_anything_starts(command, url, tmp_path):
    assert "postgresql://" in refused(letta(*command, home=tmp_path / "home", LETTA_DATABASE_URL=url))
    assert not (tmp_path / "home" / "pg").exists()


@pytest.mark.parametrize("command", [["server", "--dev"], ["up"]])
def test_a_home_and_ports_are_looked_at_before_postgres_starts(command, taken, tmp_path):
    (tmp_path / "file").write_text("")
    ports = ["--grpc-port", str(free_port()), "--port", str(taken)]

    assert "is a file" in refused(letta(*command, home=tmp_path / "file"))
    assert "--port" in refused(letta(*command, *ports, home=tmp_path / "home"))
    assert not (tmp_path / "home" / "pg").exists()


def test_a_misspelt_setting_is_told_at_the_start(tmp_path):
    (tmp_path / "config.json").write_text('{"log_levle": "info"}')
    variables = {"LETTA_DATABSE_URL": "x", "LETTA_DATABASE_URL": NOBODY}
    done = letta("server", "--dev", home=tmp_path, **variables)
    assert "did you mean LETTA_DATABASE_URL?" in done.stderr
    assert "did you mean log_level?" in done.stderr


def test_a_bad_setting_is_named(tmp_path):
    assert "log_level" in refused(letta("server", "--dev", home=tmp_path, LETTA_LOG_LEVEL="loud"))


def test_a_bad_configuration_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{bad")
    assert "config.json" in refused(letta("server", "--dev", home=tmp_path))


def test_the_dev_mode_stays_on_this_machine(tmp_path):
    assert "loopback" in refused(letta("server", "--dev", "--host", "0.0.0.0", home=tmp_path))


def test_an_unknown_service_is_refused(tmp_path):
    assert "memory" in refused(letta("server", "nonsense", home=tmp_path))


def test_an_empty_database_is_upgraded_and_stays_so(databases, tmp_path):
    url = databases.empty()
    for _ in range(2):
        done = letta("db", "upgrade", home=tmp_path, LETTA_DATABASE_URL=url)
        assert done.returncode == 0, done.stderr
        assert "up to date" in done.stderr


def test_the_first_key_is_made_once(databases, tmp_path):
    url = databases.clone(["auth"])
    first = letta("keys", "bootstrap", home=tmp_path, LETTA_DATABASE_URL=url)
    again = letta("keys", "bootstrap", home=tmp_path, LETTA_DATABASE_URL=url)

    assert first.stdout.startswith("lk_")
    assert again.stdout == ""
    assert "already" in again.stderr


@pytest.mark.parametrize("command", ["server", "up"])
def test_a_server_ends_in_good_order(databases, command):
    with letta_server(databases.clone(SCHEMAS), command=command) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0


@pytest.mark.parametrize("handle", ["builtin/nothing", "nobody/model"])
def test_a_default_model_that_does_not_exist_is_told_at_the_start(databases, handle):
    with letta_server(databases.clone(SCHEMAS), environment={"LETTA_DEFAULT_LLM_HANDLE": handle}) as running:
        log, end = running.home / "server.log", time.monotonic() + 60
        while f"LETTA_DEFAULT_LLM_HANDLE={handle}" not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
