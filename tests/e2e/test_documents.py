"""What the documents and the examples say works: their code runs against a server as it stands on the page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600
ALL = os.environ.get("LETTA_TEST_EXAMPLES") == "all"

# Directory, program that it needs, commands; `ADDRESS` is the gRPC address of the server.
EXAMPLES = {
    "go": ("go", ["./generate.sh", "go run . -address ADDRESS"]),
    "typescript": ("npm", ["npm install --no-audit --no-fund", "npm start -- ADDRESS"]),
    "java": ("mvn", ["mvn -B -q compile exec:java -Dexec.args=ADDRESS"]),
}


def run(command: list[str], *, directory: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/first-agent.md"])
def test_the_sdk_on_the_page_remembers(page, server):
    (code,) = blocks(page, "python")

    said = run([sys.executable, "-W", "error", "-c", code.replace("http://localhost:8283", server.http_url)])

    assert "Sam" in said


def test_an_agent_is_carried_over_as_the_page_says(server, http, agent_id):
    (code,) = blocks("docs/howto/upgrade-from-v1.md", "python")
    http.post(f"/v1/agents/{agent_id}/archival-memory", json={"text": "Sam likes tea."})
    before = http.get("/v1/agents/count").json()

    code = re.sub(r"http://(old|new):8283", server.http_url, code).replace("lk_...", "unused")
    run([sys.executable, "-c", code])

    assert http.get("/v1/agents/count").json() == 2 * before


def test_the_python_example_remembers(server):
    assert "Your name is Sam" in run([sys.executable, "examples/python/chat.py", server.grpc_address])


def test_the_example_tidies_memory_and_http_tells_of_it(server, http):
    told = run([sys.executable, "examples/python/tidy_memory.py", server.grpc_address])

    assert "Sam likes green tea. + Sam likes green tea with honey. -> Sam likes green tea with honey." in told
    assert "Location: Oslo -> Location: Quito" in told
    done = http.get("/v1/memory-suggestions/", params={"state": "accepted", "limit": 2}).json()
    assert {each["kind"] for each in done} == {"merge_passages", "correct_block"}
    [merged] = [each for each in done if each["kind"] == "merge_passages"]
    assert (merged["scores"]["same_text"], len(merged["passages"]), merged["correction"]) == (False, 2, None)
    path = f"/v1/memory-suggestions/{merged['id']}"
    assert http.get(path).json() == merged == http.post(f"{path}/accept").json()
    assert http.post(f"{path}/dismiss").status_code == 409
    assert http.get("/v1/memory-suggestions/suggestion-none").status_code == 404
    policy = f"/v1/archives/{merged['archive_id']}/review-policy"
    assert http.get(policy).json()["suggest_duplicates"] is True
    assert http.patch(policy, json={"suggest_duplicates": False}).json()["suggest_duplicates"] is False
    [corrected] = [each for each in done if each["kind"] == "correct_block"]
    value = http.get(f"/v1/blocks/{corrected['block_id']}").json()["value"]
    assert value.startswith("Name: Sam\nLocation: Quito")
    assert http.get(f"/v1/agents/{corrected['agent_id']}/review-policy").json()["suggest_corrections"] is True


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_other_examples_remember(name, server):
    program, commands = EXAMPLES[name]
    if not ALL:
        pytest.skip("fetches packages; set LETTA_TEST_EXAMPLES=all")
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")

    said = [
        run(line.replace("ADDRESS", server.grpc_address).split(), directory=ROOT / "examples" / name)
        for line in commands
    ]

    assert "Your name is Sam" in said[-1]


def test_the_command_of_the_tutorial_remembers(server):
    environment = {"LETTA_AGENT_ADDRESS": server.grpc_address}
    letta = [sys.executable, "-m", "letta_cli"]
    run([*letta, "chat", "-m", "My name is Sam and I am allergic to peanuts."], environment=environment)

    said = run([*letta, "chat", "-m", "What is my name?"], environment=environment)

    assert "Sam" in said
