"""The stores of memory as tests of search use them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from letta.common.v1.message_pb2 import ContentPart, Message, MessageRole, TextContent
from letta.llm.v1.embedding_service_pb2 import Embedding, EmbedResponse
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.message_service_pb2 import SearchStoredMessagesRequest
from letta.memory.v1.passage_pb2 import Passage
from letta.memory.v1.passage_service_pb2 import PassageSearchResult, SearchPassagesRequest
from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of
from letta_memory.domain.passages import PassageScope
from letta_memory.domain.search.cells import CellMaker
from letta_memory.domain.search.index import LateConversations, SearchKeeper
from letta_memory.store.archives import SqlArchiveStore
from letta_memory.store.contexts import SqlContextStore
from letta_memory.store.messages import SqlMessageStore
from letta_memory.store.passages import SqlPassageStore
from letta_memory.store.pending import SqlPendingStore
from letta_memory.store.search.cells import SqlSearchCellStore
from letta_memory.store.search.index import SqlSearchIndexStore
from letta_postgres.db import Database

NOW = datetime(2026, 1, 2, tzinfo=UTC)
VECTOR = [1.0, 0.0]


class SearchStore:
    """The stores of memory, an organization of its own, and an agent in it."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.late = LateConversations()
        self.contexts = SqlContextStore(db, self.late)
        self.messages, self.passages = SqlMessageStore(db), SqlPassageStore(db)
        self.archives, self.pending = SqlArchiveStore(db), SqlPendingStore(db)
        self.index, self.cells = SqlSearchIndexStore(db), SqlSearchCellStore(db)
        self.actor = Actor(new_id("org"), "user-ann")
        self.agent_id, self.fence = new_id("agent"), 0

    async def begin(self) -> None:
        request = pb.ProvisionAgentRequest(agent_id=self.agent_id, agent_name="Ada", messages=[said("You are Ada.")])
        await self.contexts.provision_agent(self.actor, request, [])

    async def say(self, *texts: str, commit: bool = True) -> dict[str, Any]:
        self.fence += 1
        owner = {"agent_id": self.agent_id, "conversation_id": self.agent_id, "run_id": new_id("run")}
        owner["fence"] = self.fence
        await self.contexts.begin_step(self.actor, pb.BeginStepRequest(**owner, input=[said(text) for text in texts]))
        if commit:
            await self.contexts.commit_step(self.actor, pb.CommitStepRequest(**owner))
        return owner

    async def heard(self, query: str, **more: Any) -> list[str]:
        request = SearchStoredMessagesRequest(agent_id=self.agent_id, query=query, limit=50, **more)
        hits = await self.messages.search(self.actor, request, None, types=0)
        return [Message.FromString(hit.found.message).parts[0].text.text for hit in hits]

    async def write(self, *texts: str, vector: bool = True) -> list[Passage]:
        drafts = [
            Passage(
                id=new_id("passage"),
                text=text,
                metadata="{}",
                created_at=stamp_of(NOW),
                embedding=VECTOR if vector else [],
            )
            for text in texts
        ]
        place = PassageScope(agent_id=self.agent_id)
        written = await self.passages.create(self.actor, place, drafts, embedder="test/two", request_hash=b"", now=NOW)
        return list(written.rows)

    async def found(self, archive_id: str, query: str, *, vector: bool = False, **more: Any) -> list[str]:
        question = EmbedResponse(model="test/two", embeddings=[Embedding(values=VECTOR)])
        request = SearchPassagesRequest(query=query, limit=50, **more)
        questions = [question] if vector else []
        hits = await self.passages.search(self.actor, [archive_id], request, questions, embeddings=False, now=NOW)
        return [hit.passage.text for hit in hits]

    async def hits(self, archive_id: str, query: str, **more: Any) -> list[PassageSearchResult]:
        request = SearchPassagesRequest(query=query, limit=50, **more)
        return await self.passages.search(self.actor, [archive_id], request, [], embeddings=False, now=NOW)

    async def keep(self) -> None:
        """Do all that the background would."""
        cells = CellMaker(self.cells, many=600)
        await SearchKeeper(self.index, self.late, cells, embed_messages=False).settle()

    async def counted(self, table: str) -> int:
        [(count,)] = await self.db.hot(
            f"select count(*) from memory.{table} where organization_id = %s", (self.actor.organization_id,)
        )
        return int(count)


def said(text: str) -> Message:
    role = MessageRole.MESSAGE_ROLE_SYSTEM if text.startswith("You are") else MessageRole.MESSAGE_ROLE_USER
    parts = [ContentPart(text=TextContent(text=text))]
    return Message(id=new_id("message"), role=role, created_at=stamp_of(NOW), parts=parts)
