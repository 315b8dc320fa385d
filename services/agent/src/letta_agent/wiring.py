"""Builds the agent service from its parts."""

from __future__ import annotations

from datetime import datetime, timedelta

from letta.agent.v1 import (
    agent_service_pb2_grpc,
    bundle_service_pb2_grpc,
    chat_completion_service_pb2_grpc,
    conversation_service_pb2_grpc,
    run_service_pb2_grpc,
    step_service_pb2_grpc,
)
from letta_agent.clients.credentials import CredentialClient
from letta_agent.clients.folders import FolderClient
from letta_agent.clients.memory import MemoryClient
from letta_agent.clients.models import ModelClient
from letta_agent.clients.secrets import SECRETS, SecretClient
from letta_agent.clients.tools import ToolClient
from letta_agent.domain.agents.agents import Agents
from letta_agent.domain.agents.context_window import Overviews
from letta_agent.domain.agents.conversations import Conversations
from letta_agent.domain.agents.direct_calls import ToolRuns
from letta_agent.domain.agents.records import AgentPeers
from letta_agent.domain.bundles.exporter import Exporter
from letta_agent.domain.bundles.importer import Importer
from letta_agent.domain.context.compactor import Compactor
from letta_agent.domain.journal.event_writer import EventWriter
from letta_agent.domain.journal.records import QueueStore
from letta_agent.domain.loop.deps import LoopDeps
from letta_agent.domain.peers.credentials import CredentialPeer
from letta_agent.domain.runs.runner import Runner, RunnerOptions
from letta_agent.domain.runs.runs import RunOptions, Runs
from letta_agent.domain.toolcalls.builtin import BuiltinTools
from letta_agent.domain.toolcalls.executor import Caller
from letta_agent.domain.toolcalls.toolsets import Toolsets
from letta_agent.servicers.agents import AgentServicer
from letta_agent.servicers.bundles import BundleServicer
from letta_agent.servicers.conversations import ConversationServicer
from letta_agent.servicers.dialects.chat_completions import ChatCompletionServicer
from letta_agent.servicers.runs import RunServicer
from letta_agent.servicers.steps import StepServicer
from letta_agent.servicers.stores import AgentStores
from letta_agent.settings import AgentSettings
from letta_agent.store.agents import SqlAgentStore
from letta_agent.store.conversations import SqlConversationStore
from letta_agent.store.queue import SqlQueueStore
from letta_agent.store.runs import SqlRunStore
from letta_common.clock import Clock
from letta_common.process.periodic import Periodic, stop_all
from letta_common.sealing import Sealer
from letta_common.values.ids import new_id
from letta_common.values.repeats import Digests
from letta_postgres.db import Database, DatabaseOptions
from letta_postgres.migrations import upgrade
from letta_postgres.resealing import Resealer, SealedColumn
from letta_rpc.service import Deps, Service, Servicer

SCHEMA = "agent"
SEALED = (SealedColumn(SECRETS),)
_FORGET_BATCH = 10_000  # rows a statement, so that none holds its locks for long
_ORPHAN_BATCH = 100  # few come about, each with runs to remove as well
_OVERDUE_BATCH = 20  # each begins a run, and the next turn takes the rest
_HOUR = 3600.0


async def build(settings: AgentSettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    dsn = settings.database_url.get_secret_value()
    await upgrade(dsn, package="letta_agent", schema=SCHEMA)
    options = DatabaseOptions(pool_size=settings.pool_size, application_name="letta-agent")
    db = await Database.open(dsn, schema=SCHEMA, options=options)
    clock = deps.clock
    memory, models = MemoryClient(deps.channels["memory"]), ModelClient(deps.channels["llm_gateway"])
    tools, credentials = ToolClient(deps.channels["tools"]), CredentialClient(deps.channels["auth"])
    sealer, queue, store = Sealer(settings.sealing_secrets()), SqlQueueStore(db), SqlRunStore(db)
    secrets, writer, caller = SecretClient(sealer), EventWriter(queue), Caller(BuiltinTools(memory, clock), tools)
    kit = LoopDeps(
        store=store,
        memory=memory,
        models=models,
        toolsets=Toolsets(tools, clock),
        caller=caller,
        compactor=Compactor(models, clock),
        secrets=secrets,
        clock=clock,
        denies=settings.on_pending_approval == "deny",
    )
    runner = Runner(kit, queue, credentials, writer, _options(settings))
    digests, waiting = Digests(settings.secret()), RunOptions(settings.queue_length, denies=kit.denies)
    runs = Runs(store, runner, memory, clock, digests=digests, options=waiting)
    agent_store, peers = SqlAgentStore(db), AgentPeers(memory, models, tools)
    stores = AgentStores(agent_store, SqlConversationStore(db), store)
    agents, calls = Agents(agent_store, peers, secrets, clock), ToolRuns(agent_store, peers, caller, secrets)
    overviews = Overviews(agent_store, peers, clock)
    agent_servicer = AgentServicer(agents, calls, overviews, runs, clock, digests=digests, stores=stores)
    conversations = Conversations(stores.conversations, memory, agents, models, clock)
    tidy = _Housekeeping((agents, conversations), runs, queue, credentials=credentials, settings=settings, clock=clock)
    background = _background(tidy, Resealer(db, sealer, SEALED), settings)

    async def start() -> None:
        writer.start()  # before the runner, whose first runs have events to write at once
        await runner.start()
        for work in background:
            work.start()

    async def close() -> None:
        await stop_all(background)  # in this order: runs that end still write events, which need the database
        await runner.close(settings.drain_seconds)
        await writer.close()
        await db.close()

    return Service(
        name="agent",
        servicers=(
            (agent_service_pb2_grpc.add_AgentServiceServicer_to_server, agent_servicer),
            (step_service_pb2_grpc.add_StepServiceServicer_to_server, StepServicer(store)),
            (bundle_service_pb2_grpc.add_BundleServiceServicer_to_server, _bundles(agents, peers, deps, digests)),
            *_talks(runs, conversations, clock, digests=digests, stores=stores),
        ),
        start=start,
        close=close,
        alive=db.alive,
    )


def _talks(
    runs: Runs, conversations: Conversations, clock: Clock, *, digests: Digests, stores: AgentStores
) -> tuple[Servicer, ...]:
    """Return the services that send messages to agents."""
    conversing = ConversationServicer(conversations, runs, clock, digests=digests, stores=stores)
    completing = ChatCompletionServicer(runs, conversations, clock)
    return (
        (run_service_pb2_grpc.add_RunServiceServicer_to_server, RunServicer(runs, stores, clock)),
        (conversation_service_pb2_grpc.add_ConversationServiceServicer_to_server, conversing),
        (chat_completion_service_pb2_grpc.add_ChatCompletionServiceServicer_to_server, completing),
    )


def _bundles(agents: Agents, peers: AgentPeers, deps: Deps, digests: Digests) -> BundleServicer:
    folders = FolderClient(deps.channels["memory"])
    exporter, importer = Exporter(agents, peers, folders), Importer(agents, peers, folders)
    return BundleServicer(exporter, importer, deps.clock, digests=digests)


def _background(tidy: _Housekeeping, resealer: Resealer, settings: AgentSettings) -> tuple[Periodic, ...]:
    return (
        Periodic("housekeeping", tidy.turn, settings.sweep_seconds),
        Periodic("seal anew", resealer.reseal, _HOUR, at_once=True),
    )


def _options(settings: AgentSettings) -> RunnerOptions:
    return RunnerOptions(
        owner=new_id("replica"),
        lease_ms=settings.lease_ms,
        dispatch_seconds=settings.dispatch_seconds,
        slots=settings.run_slots,
        slots_of_one=settings.run_slots_of_organization,
        waiting_of_one=settings.run_queue_of_organization,
        takeovers=settings.run_takeovers,
    )


class _Housekeeping:
    """Finishes what crashes left half done and forgets old events."""

    def __init__(
        self,
        rooms: tuple[Agents, Conversations],
        runs: Runs,
        queue: QueueStore,
        *,
        credentials: CredentialPeer,
        settings: AgentSettings,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._runs = runs
        self._credentials = credentials
        self._queue = queue
        self._settings = settings
        self._clock = clock

    async def turn(self) -> None:
        """Do all of it once."""
        now = self._clock.now()
        before = now - timedelta(seconds=self._settings.sweep_seconds)
        # Agents first: a conversation is finished by means of its agent.
        for room in self._rooms:
            await room.finish_half_done(self._credentials, before)
        await self._answer_overdue(now)
        await self._queue.forget_orphans(before, _ORPHAN_BATCH)
        await self._queue.forget_events(now - timedelta(hours=self._settings.event_hours), _FORGET_BATCH)

    async def _answer_overdue(self, now: datetime) -> None:
        """Answer requests for approval that wait for longer than they may."""
        if not self._settings.approval_seconds:
            return
        before = now - timedelta(seconds=self._settings.approval_seconds)
        for overdue in await self._queue.list_overdue(before, _OVERDUE_BATCH):
            await self._runs.answer_overdue(overdue, approve=self._settings.approval_default == "approve")
