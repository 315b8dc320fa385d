"""How many calls between services and SQL statements a message costs, for short and long histories, and a screen.

Counts come from outside the code that is counted: statements from pg_stat_statements of a real Postgres, calls from the
client library's counter. The last line printed is JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from prometheus_client import REGISTRY

from benchmarks.vendor_work import LENGTHS, MODELS, vendors, work_of
from letta.agent.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
)
from letta.common.v1 import message_pb2
from letta.memory.v1 import block_pb2, context_service_pb2, context_service_pb2_grpc
from letta_cli.servers.schemas import upgrade_all
from letta_cli.servers.stack import Stack
from letta_common.actor import acting_as
from letta_common.clock import SystemClock
from letta_common.values.ids import new_id
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from letta_rpc.auth_client import AuthClient

HISTORIES = (10, 10_000)
ROUNDS = 10
IN_CONTEXT = 10
CHUNK = 500
LISTED = 50
CALL_SECONDS = 60.0
EDIT = 'CALL memory_insert {"label": "human", "new_string": "Likes tea."}'
PER_RUN = ("agent.admit_run", "agent.close_run")
"""Statements of a run rather than of a step."""
BATCHED = (
    "as h(organization_id, id)",
    "agent.run_events",
    "agent.claim_due_runs",
    "agent.renew_leases",
    "delete from agent.conversation_queue",
    "llm.usage",
    "llm.budgets",
    "llm.providers",
    "llm.defaults",
    "memory.archives a where a.waiting_since",
    "memory.archive_reviews",
    "update memory.search_positions",
    "memory.settle_corrections",
    "memory.block_history h where",
    "memory.list_similar",
    "memory.passage_digests",
    "memory.settle_review",
    "memory.close_review",
    "memory.claim_file",
    "memory.index_messages",
    "memory.purge_some",
    "memory.search_",
    "memory.tidy_scope",
    "memory.count_scope",
    "tools.tools",
)
"""Statements of the background, for all runs of a replica together: left out where they are fewer than the messages."""
REFRESHED = (
    "letta.auth.v1.CredentialService/ExchangeCredential",
    "letta.tools.v1.ToolService/ResolveTools",
    "SELECT agent.agents.id",
    "SELECT agent.conversations.definition",
    "SELECT auth.users.id",
)
"""Calls and statements that renew a cache by time: left out where they are fewer than the messages."""
SETTLE_SECONDS = 0.5
Send = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Counts:
    """What one message cost."""

    rpcs: dict[str, float]
    per_run: float
    per_step: float
    statements: dict[str, float]


class Meter:
    """Counts calls and statements."""

    def __init__(self, dsn: str) -> None:
        self._conn = psycopg.connect(dsn, autocommit=True)
        self._conn.execute("create extension if not exists pg_stat_statements")

    async def count(self, send: Send, text: str) -> Counts:
        """Send the text a few times and return the cost of one."""
        await send(text)
        await asyncio.sleep(SETTLE_SECONDS)
        self._conn.execute("select pg_stat_statements_reset()")
        before = _calls()
        for _ in range(ROUNDS):
            await send(text)
        await asyncio.sleep(SETTLE_SECONDS)  # closing a run does not keep its caller waiting
        rpcs, statements = _of_one(_calls() - before), _of_one(self._statements())
        per_run = sum(number for query, number in statements.items() if any(name in query for name in PER_RUN))
        return Counts(rpcs, per_run, sum(statements.values()) - per_run, statements)

    def _statements(self) -> Counter[str]:
        rows = self._conn.execute(
            "select query, calls::int from pg_stat_statements where toplevel and query !~ 'pg_stat_statements'"
        )
        found: Counter[str] = Counter()
        for query, calls in rows:  # one text can have several entries, by the types of its parameters
            found[query] += calls
        return found


def _of_one(counts: Counter[str]) -> dict[str, float]:
    """Return what is done for one message, of what was done for all, but for what goes by time."""
    return {
        name: number / ROUNDS
        for name, number in counts.items()
        if number >= ROUNDS or not any(known in name for known in (*BATCHED, *REFRESHED))
    }


def _calls() -> Counter[str]:
    """Return the calls that services made to each other so far."""
    found: Counter[str] = Counter()
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            method = sample.labels.get("method", "")
            if sample.name == "letta_client_rpc_total" and not method.startswith("letta.agent."):
                found[method] = int(sample.value)
    return found


class Conversation:
    """An agent with a history."""

    def __init__(self, stack: Stack) -> None:
        channel = stack.channel("budget")
        self._agents = agent_service_pb2_grpc.AgentServiceStub(channel)
        self._runs = run_service_pb2_grpc.RunServiceStub(channel)
        self._contexts = context_service_pb2_grpc.ContextServiceStub(channel)
        self._auth = AuthClient(channel, SystemClock())
        self._agent_id = ""

    async def begin(self, model: str, history: int) -> None:
        """Make the agent and its history, of which the last messages stay in context."""
        await self.make(model)
        await self.remember(history)

    async def make(self, model: str) -> None:
        """Make the agent."""
        request = agent_service_pb2.CreateAgentRequest(
            agent=agent_pb2.Agent(model=model), memory_blocks=[block_pb2.Block(label="human", value="Name: Sam.")]
        )
        self._agent_id = (await self._agents.CreateAgent(request, timeout=CALL_SECONDS)).agent.id

    async def remember(self, history: int, *, in_context: int = IN_CONTEXT) -> int:
        """Commit messages as the steps of one run, and keep the last ones in context; return the bytes of all."""
        messages = [_message(index) for index in range(history)]
        with acting_as(await self._auth.exchange("", "")):
            await self._commit(messages, in_context)
        return sum(len(message.SerializeToString()) for message in messages)

    async def _commit(self, messages: list[message_pb2.Message], in_context: int) -> None:
        run_id = new_id("run")
        owner: dict[str, Any] = {"agent_id": self._agent_id, "conversation_id": self._agent_id, "run_id": run_id}
        await self._contexts.BeginStep(context_service_pb2.BeginStepRequest(**owner, fence=1), timeout=CALL_SECONDS)
        for index, start in enumerate(range(0, len(messages), CHUNK)):
            chunk = messages[start : start + CHUNK]
            moved = {"window": _window(chunk[-in_context:][0].id)} if in_context < len(messages) else {}
            await self._contexts.CommitStep(
                context_service_pb2.CommitStepRequest(**owner, fence=1, step_index=index, messages=chunk, **moved),
                timeout=CALL_SECONDS,
            )

    async def send(self, text: str) -> None:
        """Send a message and check that it was answered."""
        request = run_service_pb2.SendMessageRequest(agent_id=self._agent_id, run=run_pb2.RunRequest(input_text=text))
        answer = await self._runs.SendMessage(request, timeout=CALL_SECONDS)
        if not answer.messages:
            raise RuntimeError(f"no answer to {text!r}")


def _message(index: int) -> message_pb2.Message:
    role = message_pb2.MESSAGE_ROLE_ASSISTANT if index % 2 else message_pb2.MESSAGE_ROLE_USER
    part = message_pb2.ContentPart(text=message_pb2.TextContent(text=f"This is message {index} of a long talk."))
    made = message_pb2.Message(id=new_id("message"), role=role, parts=[part])
    made.created_at.GetCurrentTime()
    return made


def _window(first_kept: str) -> context_service_pb2.Window:
    return context_service_pb2.Window(first_kept_message_id=first_kept)


def _report(plain: Counts, tool: Counts) -> dict[str, Any]:
    """Return the figures: of a step without tools, and of the step of a run that calls one memory tool."""
    return {
        "rpcs_per_step": sum(plain.rpcs.values()),
        "sql_per_step": plain.per_step,
        "sql_per_run": plain.per_run,
        "with_memory_tool": {
            "rpcs_per_step": sum(tool.rpcs.values()) - _LATER_STEP_RPCS,
            "sql_per_step": tool.per_step - _LATER_STEP_SQL,
            "sql_per_run": tool.per_run,
        },
    }


_LATER_STEP_RPCS = 2  # the step after the tool call: generate, commit
_LATER_STEP_SQL = 1  # the step after the tool call: commit


async def measure(dsn: str, home: Path) -> dict[str, Any]:
    """Count for each history; return the report."""
    await upgrade_all(dsn)
    # Indexing and embedding go on in the background, in batches; they are no part of a step.
    quiet = {
        "embed_messages": False,
        "embedding_pause_seconds": 3600,
        "index_pause_seconds": 3600,
        "log_level": "warning",
    }
    async with AsyncExitStack() as ends:
        settings, asked = await ends.enter_async_context(vendors())
        arguments = {"database_url": dsn, "home": home, "dev_mode": True, "bind": "127.0.0.1:0", **quiet, **settings}
        stack = Stack(arguments, http_bind="127.0.0.1:0")
        ends.push_async_callback(stack.stop)
        await stack.start()
        meter = Meter(dsn)
        report: dict[str, Any] = {}
        for history in HISTORIES:
            plain, rules = Conversation(stack), Conversation(stack)
            await plain.begin("builtin/echo", history)
            await rules.begin("builtin/rules", history)
            step, tool = await meter.count(plain.send, "Hello!"), await meter.count(rules.send, EDIT)
            _print(f"history of {history}, step without tools", step)
            _print(f"history of {history}, run with one memory tool call", tool)
            report[str(history)] = _report(step, tool)
        report["screens"] = await screens(stack, meter)
        report["vendors"] = {vendor: await asking(stack, meter, vendor, asked) for vendor in MODELS}
        return report


async def asking(stack: Stack, meter: Meter, vendor: str, asked: Counter[str]) -> dict[str, dict[str, float]]:
    """Count what a message costs on its way to a vendor, for each length of what is in context."""
    found = {}
    for length in LENGTHS:
        talk = Conversation(stack)
        await talk.make(MODELS[vendor])
        # From here on the size of the context is what the vendor counts, which is little: nothing is compacted.
        await talk.send("Hello!")
        size = await talk.remember(length, in_context=length)
        counts = await meter.count(talk.send, "Hello!")
        _print(f"{vendor}, {length} messages in context", counts)
        done = await work_of(talk.send, asked, vendor)
        sys.stdout.write(f"  {done}\n")
        costs = {"rpcs": sum(counts.rpcs.values()), "sql": counts.per_step, "sql_per_run": counts.per_run}
        found[str(length)] = {**costs, **done, "bytes_of_history": size}
    return found


async def screens(stack: Stack, meter: Meter) -> dict[str, float]:
    """Count the statements of making an agent, of one agent and of a list of them."""
    agents = agent_service_pb2_grpc.AgentServiceStub(stack.channel("budget"))
    new = agent_service_pb2.CreateAgentRequest(
        agent=agent_pb2.Agent(model="builtin/echo"),
        memory_blocks=[block_pb2.Block(label=label, value="Sam.") for label in ("human", "persona")],
        include_base_tools=True,
    )
    one = agent_service_pb2.GetAgentRequest(agent_id=(await agents.CreateAgent(new, timeout=CALL_SECONDS)).agent.id)
    several = agent_service_pb2.ListAgentsRequest(limit=LISTED)
    asked: dict[str, Send] = {
        "create": lambda _: agents.CreateAgent(new, timeout=CALL_SECONDS),
        "retrieve": lambda _: agents.GetAgent(one, timeout=CALL_SECONDS),
        "list": lambda _: agents.ListAgents(several, timeout=CALL_SECONDS),
    }
    found = {}
    for name, ask in asked.items():
        counts = await meter.count(ask, name)
        _print(f"agents, {name}", counts)
        found[name] = sum(counts.statements.values())
    return found


def _print(what: str, counts: Counts) -> None:
    sys.stdout.write(f"{what}\n")
    for name, number in sorted(counts.rpcs.items()):
        sys.stdout.write(f"  {number:5.1f}  {name}\n")
    for query, number in sorted(counts.statements.items()):
        sys.stdout.write(f"  {number:5.1f}  {' '.join(query.split())[:110]}\n")


def main() -> None:
    """Count on a throw-away Postgres and print the report."""
    with tempfile.TemporaryDirectory(prefix="letta-budget-") as scratch:
        home = Path(scratch)
        statistics = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "top"}
        with EmbeddedPostgres(home / "pg", PostgresOptions(durable=False, parameters=statistics)) as postgres:
            report = asyncio.run(measure(postgres.dsn(), home))
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
