"""The four statements of a message, of several versions of the product in turn: processor time of Postgres for each.

`python -m benchmarks.statements OLD [...]` takes source trees, such as `git archive` makes them; this one is always the
last. Each runs its own stores on a database of its own on one durable server, some messages at a time, so that what the
neighbours do reaches all alike. Figures are lower quartiles in microseconds; Postgres itself counts the WAL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.paired import HERE, paths_of
from letta.agent.v1 import agent_pb2, run_pb2
from letta.common.v1 import message_pb2, usage_pb2
from letta.memory.v1 import block_pb2
from letta.memory.v1 import context_service_pb2 as pb
from letta_agent.clients.held_contexts import HeldContexts
from letta_agent.domain.agents.records import StoredAgent
from letta_agent.domain.journal.records import LeaseTerms, NewRun, RunEnd, RunKey, StepSummary
from letta_agent.store.agents import SqlAgentStore
from letta_agent.store.runs import SqlRunStore
from letta_cli.servers.schemas import upgrade_all
from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from letta_memory.domain.blocks import new_block
from letta_memory.store.contexts import SqlContextStore
from letta_postgres.db import Database, DatabaseOptions

USER, ASSISTANT = message_pb2.MESSAGE_ROLE_USER, message_pb2.MESSAGE_ROLE_ASSISTANT
COMPLETED, END_TURN = run_pb2.RUN_STATUS_COMPLETED, usage_pb2.STOP_REASON_END_TURN

STATEMENTS = ("admit", "begin", "commit", "close")
FILL = 100
"""Agents that are there before."""
WARM = 4
BLOCK = 5
TEXT = "The quick brown fox jumps over the lazy dog while it rains in the green hills. " * 2
WAL = "select wal_records, wal_bytes from pg_stat_wal"
HOT = (
    "select sum(n_tup_upd)::int, sum(n_tup_hot_upd)::int from pg_stat_user_tables "
    "where relname in ('conversation_queue', 'runs', 'conversations')"
)


class Worker:
    """The stores of one source tree, in a process of its own."""

    def __init__(self, tree: Path, dsn: str, history: int) -> None:
        self.name = str(tree)
        self._dsn = dsn
        command = [sys.executable, "-m", "benchmarks.statements", "--worker", dsn, "--history", str(history)]
        environment = {**os.environ, "PYTHONPATH": paths_of(tree)}
        self._process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.rounds: list[dict[str, float]] = []

    def block(self) -> None:
        """Send some messages to a new agent."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.rounds.append(json.loads(self._process.stdout.readline()))

    def report(self) -> dict[str, Any]:
        """Return the lower quartile of each statement, their sum, WAL a message and the share of HOT updates."""
        rounds = self.rounds[WARM:]
        found: dict[str, Any] = {
            name: round(statistics.quantiles([r[name] for r in rounds], n=4)[0]) for name in STATEMENTS
        }
        found["sum"] = round(statistics.quantiles([sum(r[name] for name in STATEMENTS) for r in rounds], n=4)[0])
        for name in ("wal_records", "wal_bytes"):
            found[name] = round(statistics.median(r[name] for r in rounds), 1)
        with psycopg.connect(self._dsn) as conn:
            row = conn.execute(HOT.encode()).fetchone()
        found["updates"], found["hot_updates"] = row or (0, 0)
        return found

    def end(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait(30)


class Talk:
    """An agent that messages are sent to, by the stores alone."""

    def __init__(self, runs: SqlRunStore, memory: SqlContextStore, actor: Actor) -> None:
        self._runs, self._memory, self._actor = runs, memory, actor
        self._agent_id = new_id("agent")
        self._held = HeldContexts()

    async def begin(self, agents: SqlAgentStore, history: int) -> None:
        """Make the agent and its history."""
        state = agent_pb2.Agent(id=self._agent_id, name="Ada", model="builtin/echo")
        state.created_at.GetCurrentTime()
        state.updated_at.GetCurrentTime()
        await agents.create(self._actor, StoredAgent(self._agent_id, state, (), b""))
        given = [block_pb2.Block(label=label, value=f"I am {label}. " * 10) for label in ("human", "persona")]
        blocks = [new_block(self._actor, new_id("block"), block, datetime.now(UTC)) for block in given]
        messages = [_message(role) for _ in range(history // 2) for role in (USER, ASSISTANT)]
        request = pb.ProvisionAgentRequest(agent_id=self._agent_id, agent_name="Ada", messages=messages)
        await self._memory.provision_agent(self._actor, request, blocks)

    async def send(self, spent: Spent) -> None:
        """Do for one message what the services ask of Postgres."""
        run = NewRun(
            new_id("run"), self._agent_id, self._agent_id, new_id("otid"), b"h" * 32, TEXT.encode(), TEXT.encode()
        )
        with spent.on("admit"):
            admitted = await self._runs.admit(self._actor, run, LeaseTerms("bench", 10_000))
        owner: dict[str, Any] = {"agent_id": self._agent_id, "conversation_id": self._agent_id, "run_id": run.id}
        key = RunKey(self._actor.organization_id, self._agent_id, self._agent_id, run.id, admitted.fence)
        asked = pb.BeginStepRequest(**owner, fence=admitted.fence, input=[_message(USER)])

        async def begin(request: pb.BeginStepRequest) -> pb.BeginStepResponse:
            with spent.on("begin"):
                return await self._memory.begin_step(self._actor, request)

        begun = await self._held.begin("", asked, begin)
        known = [pb.BlockVersion(block_id=block.id, version=block.version) for block in begun.blocks]
        told = pb.CommitStepRequest(
            **owner,
            fence=admitted.fence,
            messages=[_message(ASSISTANT)],
            stop_reason=END_TURN,
            known_blocks=known,
        )
        with spent.on("commit"):
            await self._memory.commit_step(self._actor, told)
        usage = usage_pb2.TokenUsage(prompt_tokens=900, completion_tokens=30)
        step = StepSummary(
            step_index=0,
            id=new_id("step"),
            model="builtin/echo",
            provider_type="builtin",
            context_window=8192,
            usage=usage,
            stop_reason=END_TURN,
            status=2,
            started_ns=1,
            step_ns=2,
            llm_started_ns=3,
            llm_ns=4,
            tool_ns=0,
        )
        with spent.on("close"):
            await self._runs.close(key, RunEnd(COMPLETED, END_TURN, (step,), "", 930, 17))


class Spent:
    """Processor time of the backends of two connections, by statement."""

    def __init__(self, pids: list[int]) -> None:
        self._files = [Path(f"/proc/{pid}/schedstat") for pid in pids]
        self.micros: dict[str, list[float]] = {name: [] for name in STATEMENTS}

    @contextmanager
    def on(self, statement: str) -> Iterator[None]:
        """Charge what the backends do meanwhile to a statement."""
        before = self._read()
        yield
        self.micros[statement].append((self._read() - before) / 1000)

    def _read(self) -> int:
        return sum(int(file.read_text().split()[0]) for file in self._files)


def _message(role: message_pb2.MessageRole.ValueType) -> message_pb2.Message:
    made = message_pb2.Message(id=new_id("message"), role=role, step_id=new_id("step"))
    made.parts.add().text.text = TEXT
    made.created_at.GetCurrentTime()
    return made


async def work(dsn: str, history: int) -> None:
    """Serve blocks of messages for each line of the input."""
    await upgrade_all(dsn)
    options = DatabaseOptions(pool_size=1, application_name="bench")
    agent, memory = (
        await Database.open(dsn, schema="agent", options=options),
        await Database.open(dsn, schema="memory", options=options),
    )
    actor = Actor(new_id("org"), new_id("user"), frozenset({"write"}))
    runs, contexts, agents = SqlRunStore(agent), SqlContextStore(memory), SqlAgentStore(agent)
    for _ in range(FILL):
        talk = Talk(runs, contexts, actor)
        await talk.begin(agents, history)
        await talk.send(Spent([]))
    for db in (agent, memory):
        await db.hot("analyze")  # as autovacuum does; until then a plan takes any index of the organization
    pids = [(await db.hot("select pg_backend_pid()"))[0][0] for db in (agent, memory)]
    for _ in sys.stdin:
        talk = Talk(runs, contexts, actor)
        await talk.begin(agents, history)
        for db in (agent, memory):
            await db.hot("select pg_stat_force_next_flush()")
        [before] = await memory.hot(WAL)
        spent = Spent(pids)
        for _ in range(BLOCK):
            await talk.send(spent)
        for db in (agent, memory):
            await db.hot("select pg_stat_force_next_flush()")
        [after] = await memory.hot(WAL)
        found = {name: statistics.mean(values) for name, values in spent.micros.items()}
        found["wal_records"], found["wal_bytes"] = ((b - a) / BLOCK for a, b in zip(before, after, strict=True))
        sys.stdout.write(json.dumps({name: float(value) for name, value in found.items()}) + "\n")
        sys.stdout.flush()


def compare(trees: list[Path], history: int, rounds: int) -> dict[str, Any]:
    """Run each tree on one server, in turn; return their reports by tree."""
    with (
        tempfile.TemporaryDirectory(prefix="letta-statements-") as scratch,
        EmbeddedPostgres(Path(scratch) / "pg", PostgresOptions()) as server,
    ):
        workers = []
        for number, tree in enumerate(trees):
            name = f"bench_{number}"
            with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
                conn.execute(f"create database {name}".encode())
            workers.append(Worker(tree, server.dsn(name), history))
        for turn in range(rounds + WARM):
            for worker in workers[turn % len(workers) :] + workers[: turn % len(workers)]:
                worker.block()
        for worker in workers:
            worker.end()
        return {worker.name: worker.report() for worker in workers}


def main() -> None:
    """Compare and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trees", type=Path, nargs="*")
    parser.add_argument("--history", type=int, default=24, help="messages in context before the first one of a block")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        asyncio.run(work(given.worker, given.history))
        return
    found = compare([*(tree.resolve() for tree in given.trees), HERE], given.history, given.rounds)
    for name, report in found.items():
        sys.stdout.write(f"{Path(name).name}: {report}\n")
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
