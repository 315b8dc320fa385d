"""Builds the memory service from its parts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from letta.memory.v1 import (
    agent_file_service_pb2_grpc,
    archive_service_pb2_grpc,
    block_history_service_pb2_grpc,
    block_service_pb2_grpc,
    context_service_pb2_grpc,
    file_service_pb2_grpc,
    folder_service_pb2_grpc,
    identity_service_pb2_grpc,
    memory_review_service_pb2_grpc,
    message_service_pb2_grpc,
    passage_service_pb2_grpc,
)
from letta_common.clock import Clock
from letta_common.errors import AppError
from letta_common.fair_slots import FairSlots, Shares
from letta_common.process.periodic import Periodic, stop_all
from letta_common.values.repeats import Digests
from letta_documents.extractor import Extractor, ExtractorOptions
from letta_memory.clients.buckets import BucketOptions, S3Bucket
from letta_memory.clients.embeddings import EmbeddingClient, NoEmbedder
from letta_memory.domain.archival.transfers import Transfers, TransferStore
from letta_memory.domain.archival.uses import PassageUses
from letta_memory.domain.archives import Archives, ArchiveStore
from letta_memory.domain.block_history.revisions import BlockHistory, BlockHistoryStore
from letta_memory.domain.block_history.watches import BlockWatches
from letta_memory.domain.blocks import Blocks, BlockStore
from letta_memory.domain.contexts import Contexts, ContextStore
from letta_memory.domain.embeddings import Embedder, Impatient, Indexer, PendingStore
from letta_memory.domain.files import Bucket, Files, FileStore, ObjectRemover, PartKeeper
from letta_memory.domain.folders import Folders, FolderStore
from letta_memory.domain.identities import Identities, IdentityStore
from letta_memory.domain.ingestion import FileReader, ReadingStore
from letta_memory.domain.messages import Messages, MessageStore
from letta_memory.domain.passages import Passages, PassageStore
from letta_memory.domain.pruning import PruneOptions, Pruner, PruneStore
from letta_memory.domain.purges import Purges, PurgeStore
from letta_memory.domain.reading.agent_files import AgentFiles, AgentFileStore, FolderLossStore, GrepLimits
from letta_memory.domain.review.corrections import CorrectionReviewer, CorrectionStore
from letta_memory.domain.review.keeper import ReviewKeeper
from letta_memory.domain.review.passages import PassageReviewer, PassageReviewStore
from letta_memory.domain.review.suggestions import Suggestions, SuggestionStore
from letta_memory.domain.search.cells import CellMaker, SearchCellStore
from letta_memory.domain.search.index import LateConversations, SearchIndexStore, SearchKeeper
from letta_memory.domain.search.rebuilds import SearchRebuild
from letta_memory.domain.uploads import Uploads, UploadStore
from letta_memory.servicers.agent_files import AgentFileServicer
from letta_memory.servicers.archives import ArchiveServicer
from letta_memory.servicers.block_history import BlockHistoryServicer
from letta_memory.servicers.blocks import BlockServicer
from letta_memory.servicers.contexts import ContextServicer
from letta_memory.servicers.files import FileServicer
from letta_memory.servicers.folders import FolderServicer
from letta_memory.servicers.identities import IdentityServicer
from letta_memory.servicers.memory_reviews import MemoryReviewServicer
from letta_memory.servicers.messages import MessageServicer
from letta_memory.servicers.passages import PassageServicer
from letta_memory.settings import MemorySettings
from letta_memory.store.archival.transfers import SqlTransferStore
from letta_memory.store.archival.uses import SqlUseStore
from letta_memory.store.archives import SqlArchiveStore
from letta_memory.store.block_history.revisions import SqlBlockHistoryStore
from letta_memory.store.blocks import SqlBlockStore
from letta_memory.store.contexts import SqlContextStore
from letta_memory.store.files.files import SqlFileStore
from letta_memory.store.files.folders import SqlFolderStore
from letta_memory.store.files.ingestion import SqlReadingStore
from letta_memory.store.files.parts import BucketParts, RowParts, SqlLooseObjectStore
from letta_memory.store.files.uploads import SqlUploadStore
from letta_memory.store.identities import SqlIdentityStore
from letta_memory.store.messages import SqlMessageStore
from letta_memory.store.passages import SqlPassageStore
from letta_memory.store.pending import SqlPendingStore
from letta_memory.store.pruning import SqlPruneStore
from letta_memory.store.purges import SqlPurgeStore
from letta_memory.store.reading.agent_files import SqlAgentFileStore
from letta_memory.store.reading.folder_losses import SqlFolderLossStore
from letta_memory.store.review.corrections import SqlCorrectionStore
from letta_memory.store.review.passages import SqlPassageReviewStore
from letta_memory.store.review.suggestions import SqlSuggestionStore
from letta_memory.store.search.cells import SqlSearchCellStore
from letta_memory.store.search.index import SqlSearchIndexStore
from letta_memory.store.search.rebuilds import SqlSearchRebuildStore
from letta_postgres.db import Database, DatabaseOptions
from letta_postgres.migrations import upgrade
from letta_rpc.service import Deps, Service, Servicer
from letta_sandbox.calls import Isolation

SCHEMA = "memory"
_SEARCHES = Shares(slots=2, tenant_slots=1, waiting=8, patience=30.0)
"""Searches through texts at once: each takes a core, and as many megabytes as one piece of a text has."""
_USES_SECONDS = 5.0
"""Between two writings of which passages were used: what a process that dies may lose."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Where memory keeps things."""

    contexts: ContextStore
    blocks: BlockStore
    block_history: BlockHistoryStore
    archives: ArchiveStore
    passages: PassageStore
    transfers: TransferStore
    purges: PurgeStore
    agent_files: AgentFileStore
    folder_losses: FolderLossStore
    folders: FolderStore
    identities: IdentityStore
    files: FileStore
    uploads: UploadStore
    reading: ReadingStore
    messages: MessageStore
    pending: PendingStore
    pruning: PruneStore
    search_index: SearchIndexStore
    search_cells: SearchCellStore
    suggestions: SuggestionStore
    passage_reviews: PassageReviewStore
    corrections: CorrectionStore
    late: LateConversations


async def reindex(settings: MemorySettings, progress: Callable[[str], None]) -> int:
    """Index all texts of the database anew, going on where that stopped; return in how many scopes that failed."""
    db = await _open(settings)
    try:
        index = SqlSearchIndexStore(db)
        cells = CellMaker(SqlSearchCellStore(db))
        keeper = SearchKeeper(index, LateConversations(), cells, embed_messages=settings.embed_messages)
        return await SearchRebuild(SqlSearchRebuildStore(db), index, keeper).run(progress)
    finally:
        await db.close()


async def build(settings: MemorySettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    bucket = _bucket(settings)  # first, as it may not be there to be had
    db = await _open(settings)
    files = SqlFileStore(db)
    parts: PartKeeper = RowParts() if bucket is None else BucketParts(db, bucket)
    late = LateConversations()
    stores = Stores(
        contexts=SqlContextStore(db, late),
        blocks=SqlBlockStore(db),
        block_history=SqlBlockHistoryStore(db),
        archives=SqlArchiveStore(db),
        passages=SqlPassageStore(db),
        transfers=SqlTransferStore(db),
        purges=SqlPurgeStore(db),
        agent_files=SqlAgentFileStore(db),
        folder_losses=SqlFolderLossStore(db),
        folders=SqlFolderStore(db),
        identities=SqlIdentityStore(db),
        files=files,
        uploads=SqlUploadStore(db, files, deps.clock, parts, most_bytes=settings.organization_file_bytes),
        reading=SqlReadingStore(db, deps.clock, parts),
        messages=SqlMessageStore(db),
        pending=SqlPendingStore(db),
        pruning=SqlPruneStore(db),
        search_index=SqlSearchIndexStore(db),
        search_cells=SqlSearchCellStore(db),
        suggestions=SqlSuggestionStore(db),
        passage_reviews=SqlPassageReviewStore(db),
        corrections=SqlCorrectionStore(db),
        late=late,
    )
    removing = []
    if bucket is not None:
        turn = ObjectRemover(SqlLooseObjectStore(db), bucket).turn
        removing.append(Periodic("remove objects of no file", turn, settings.file_pause_seconds, at_once=True))
    return _assembled(stores, settings, deps, db, removing)


async def _open(settings: MemorySettings) -> Database:
    dsn = settings.database_url.get_secret_value()
    await upgrade(dsn, package="letta_memory", schema=SCHEMA)
    options = DatabaseOptions(pool_size=settings.pool_size, application_name="letta-memory")
    return await Database.open(dsn, schema=SCHEMA, options=options)


def _bucket(settings: MemorySettings) -> Bucket | None:
    """Return the bucket that the settings name. Raises ModuleNotFoundError without the extra `s3`."""
    if not settings.file_bucket:
        return None
    return S3Bucket(
        BucketOptions(
            name=settings.file_bucket,
            endpoint=settings.file_bucket_endpoint,
            region=settings.file_bucket_region,
            access_key=settings.file_bucket_access_key,
            secret_key=settings.file_bucket_secret_key.get_secret_value(),
        )
    )


def _assembled(stores: Stores, settings: MemorySettings, deps: Deps, db: Database, removing: list[Periodic]) -> Service:
    channel = deps.channels.get("llm_gateway")
    embedder: Embedder = NoEmbedder()
    if channel is not None:
        # Only callers are impatient: the indexer below waits, since nobody waits for it.
        embedder = Impatient(EmbeddingClient(channel, default_model=settings.embedding_model), deps.clock)
    pruner = Pruner(stores.pruning, deps.clock, _pruning(settings))
    extractor = Extractor(_extracting(settings))
    reader = FileReader(stores.reading, extractor)
    pause = settings.file_pause_seconds
    readers = [Periodic("read files", reader.turn, pause, at_once=True) for _ in range(settings.file_readers)]
    cells = CellMaker(stores.search_cells)
    keeper = SearchKeeper(stores.search_index, stores.late, cells, embed_messages=settings.embed_messages)
    review = _reviewing(stores, deps.clock)
    uses = PassageUses(SqlUseStore(db), deps.clock)
    background = [
        Periodic("prune", pruner.prune, settings.prune_seconds),
        Periodic("keep what search reads", keeper.turn, settings.index_pause_seconds),
        Periodic("review what is kept", review.turn, settings.review_pause_seconds),
        Periodic("remove what was deleted", pruner.purge, pause, at_once=True),
        Periodic("note what is used", uses.flush, _USES_SECONDS),
        *readers,
        *removing,
    ]
    if channel is not None:
        batch, looks = settings.embedding_batch, settings.embedding_pause_seconds
        patient = EmbeddingClient(channel, default_model=settings.embedding_model, background=True)
        indexer = Indexer(stores.pending, patient, batch=batch)
        background.append(Periodic("embed what waits", indexer.turn, looks, at_once=True))

    notices = db.notices("memory_blocks")
    watches = BlockWatches(stores.block_history, notices, deps.clock)

    async def start() -> None:
        for work in background:
            work.start()

    async def stop() -> None:
        # Before the database is closed, which the work in the background uses.
        await stop_all(background)
        with suppress(AppError):  # what was used last is lost then, and nothing else
            await uses.flush()
        await notices.close()
        await extractor.close()
        await db.close()

    def wake() -> None:
        for each in readers:
            each.wake()

    return Service(
        name="memory",
        servicers=_servicers(stores, settings, embedder, deps.clock, wake_readers=wake, watches=watches, uses=uses),
        start=start,
        drain=watches.drain,
        close=stop,
        alive=db.alive,
    )


def _reviewing(stores: Stores, clock: Clock) -> ReviewKeeper:
    reviewers = (PassageReviewer(stores.passage_reviews, clock), CorrectionReviewer(stores.corrections, clock))
    return ReviewKeeper([reviewer.turn for reviewer in reviewers])


def _servicers(
    stores: Stores,
    settings: MemorySettings,
    embedder: Embedder,
    clock: Clock,
    *,
    wake_readers: Callable[[], None],
    watches: BlockWatches,
    uses: PassageUses,
) -> tuple[Servicer, ...]:
    digests = Digests(settings.secret())
    contexts = ContextServicer(Contexts(stores.contexts, clock), stores.contexts)
    rules = Blocks(stores.blocks, clock)
    blocks = BlockServicer(rules, stores.blocks, digests)
    history = BlockHistoryServicer(BlockHistory(rules, stores.block_history), watches, stores.block_history)
    transfers = Transfers(stores.transfers, clock)
    archives = ArchiveServicer(
        Archives(stores.archives, embedder, clock), stores.archives, transfers, stores.transfers, digests
    )
    passages = Passages(stores.passages, stores.archives, embedder, clock, uses)
    purges = Purges(stores.purges, stores.archives, clock)
    folders = FolderServicer(
        Folders(stores.folders, stores.archives, embedder, clock), stores.folders, stores.passages, digests
    )
    uploads = Uploads(stores.uploads, stores.files, digests, most_bytes=settings.file_bytes, taken=wake_readers)
    # Without vectors of messages a question's vector would have nothing to be compared with.
    messages = Messages(stores.messages, embedder if settings.embed_messages else None)
    agent_files = AgentFiles(stores.agent_files, passages, FairSlots(_SEARCHES, "searches of files"), GrepLimits())
    return (
        (
            agent_file_service_pb2_grpc.add_AgentFileServiceServicer_to_server,
            AgentFileServicer(agent_files, stores.agent_files, stores.folder_losses, clock),
        ),
        (context_service_pb2_grpc.add_ContextServiceServicer_to_server, contexts),
        (block_service_pb2_grpc.add_BlockServiceServicer_to_server, blocks),
        (block_history_service_pb2_grpc.add_BlockHistoryServiceServicer_to_server, history),
        (archive_service_pb2_grpc.add_ArchiveServiceServicer_to_server, archives),
        (
            passage_service_pb2_grpc.add_PassageServiceServicer_to_server,
            PassageServicer(passages, purges, stores.passages, digests),
        ),
        (folder_service_pb2_grpc.add_FolderServiceServicer_to_server, folders),
        (
            identity_service_pb2_grpc.add_IdentityServiceServicer_to_server,
            IdentityServicer(Identities(stores.identities, clock), stores.identities, stores.blocks, digests),
        ),
        (
            file_service_pb2_grpc.add_FileServiceServicer_to_server,
            FileServicer(Files(stores.files), uploads, stores.uploads),
        ),
        (
            memory_review_service_pb2_grpc.add_MemoryReviewServiceServicer_to_server,
            MemoryReviewServicer(Suggestions(stores.suggestions, clock), stores.suggestions),
        ),
        (message_service_pb2_grpc.add_MessageServiceServicer_to_server, MessageServicer(messages, stores.messages)),
    )


def _pruning(settings: MemorySettings) -> PruneOptions:
    return PruneOptions(
        step_age=timedelta(days=settings.step_days),
        place_age=timedelta(days=settings.place_days),
        upload_age=timedelta(days=settings.upload_days),
        suggestion_age=timedelta(days=settings.suggestion_days),
    )


def _extracting(settings: MemorySettings) -> ExtractorOptions:
    return ExtractorOptions(
        min_isolation=Isolation[settings.file_isolation.upper()],
        allow_unsandboxed=settings.allow_unsandboxed,
        most_bytes=settings.file_bytes,
        memory_bytes=settings.file_memory_bytes,
        timeout_seconds=settings.file_timeout_seconds,
    )
