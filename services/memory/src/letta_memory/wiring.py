"""Builds the memory service from its parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from letta.memory.v1 import (
    archive_service_pb2_grpc,
    block_service_pb2_grpc,
    context_service_pb2_grpc,
    message_service_pb2_grpc,
    passage_service_pb2_grpc,
)
from letta_common.clock import Clock
from letta_common.db import Database, DatabaseOptions
from letta_common.migrations import upgrade
from letta_common.service import Deps, Service
from letta_memory.clients.embeddings import EmbeddingClient, NoEmbedder
from letta_memory.domain.archives import Archives
from letta_memory.domain.blocks import Blocks
from letta_memory.domain.contexts import Contexts
from letta_memory.domain.embeddings import Embedder, Indexer
from letta_memory.domain.messages import Messages
from letta_memory.domain.passages import Passages
from letta_memory.servicers.archives import ArchiveServicer
from letta_memory.servicers.blocks import BlockServicer
from letta_memory.servicers.contexts import ContextServicer
from letta_memory.servicers.messages import MessageServicer
from letta_memory.servicers.passages import PassageServicer
from letta_memory.settings import MemorySettings
from letta_memory.store.archives import SqlArchiveStore
from letta_memory.store.blocks import SqlBlockStore
from letta_memory.store.contexts import SqlContextStore
from letta_memory.store.messages import SqlMessageStore
from letta_memory.store.passages import SqlPassageStore
from letta_memory.store.pending import SqlPendingStore

SCHEMA = "memory"
Servicers = tuple[tuple[Callable[[Any, Any], None], object], ...]


async def build(settings: MemorySettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    dsn = settings.database_url.get_secret_value()
    await upgrade(dsn, package="letta_memory", schema=SCHEMA)
    options = DatabaseOptions(pool_size=settings.pool_size, application_name="letta-memory")
    db = await Database.open(dsn, schema=SCHEMA, options=options)
    channel = deps.channels.get("llm_gateway")
    embedder: Embedder = NoEmbedder()
    if channel is not None:
        embedder = EmbeddingClient(channel, default_model=settings.embedding_model)
    background = _Background(
        Indexer(
            SqlPendingStore(db),
            embedder,
            batch=settings.embedding_batch,
            pause_seconds=settings.embedding_pause_seconds,
        )
    )

    async def close() -> None:
        await background.stop()
        await db.close()

    return Service(
        name="memory",
        servicers=_servicers(settings, db, embedder, deps.clock),
        start=background.start if channel is not None else _idle,
        close=close,
    )


def _servicers(settings: MemorySettings, db: Database, embedder: Embedder, clock: Clock) -> Servicers:
    archives = SqlArchiveStore(db)
    contexts = Contexts(SqlContextStore(db, embed_messages=settings.embed_messages), clock)
    passages = Passages(SqlPassageStore(db), archives, embedder, clock)
    messages = Messages(SqlMessageStore(db), embedder if settings.embed_messages else None)
    return (
        (context_service_pb2_grpc.add_ContextServiceServicer_to_server, ContextServicer(contexts)),
        (block_service_pb2_grpc.add_BlockServiceServicer_to_server, BlockServicer(Blocks(SqlBlockStore(db), clock))),
        (
            archive_service_pb2_grpc.add_ArchiveServiceServicer_to_server,
            ArchiveServicer(Archives(archives, embedder, clock)),
        ),
        (passage_service_pb2_grpc.add_PassageServiceServicer_to_server, PassageServicer(passages)),
        (message_service_pb2_grpc.add_MessageServiceServicer_to_server, MessageServicer(messages)),
    )


async def _idle() -> None:
    """Start nothing: without an embedder there is no background work."""


class _Background:
    """Runs the indexer beside the service."""

    def __init__(self, indexer: Indexer) -> None:
        self._indexer = indexer
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to embed what waits."""
        self._task = asyncio.create_task(self._indexer.run())

    async def stop(self) -> None:
        """Stop, and wait until the batch in hand is given up."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
