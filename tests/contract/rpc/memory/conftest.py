"""A memory service over both transports, with a deterministic embedder behind it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import grpc.aio
import pytest
from pydantic import SecretStr

from letta.common.v1 import message_pb2
from letta.llm.v1 import embedding_service_pb2, embedding_service_pb2_grpc
from letta.memory.v1 import (
    agent_file_service_pb2_grpc,
    archive_service_pb2_grpc,
    block_history_service_pb2_grpc,
    block_pb2,
    block_service_pb2_grpc,
    context_service_pb2,
    context_service_pb2_grpc,
    file_service_pb2_grpc,
    folder_service_pb2_grpc,
    identity_service_pb2_grpc,
    memory_review_service_pb2_grpc,
    message_service_pb2_grpc,
    passage_service_pb2_grpc,
)
from letta_common.actor import Actor, acting_as
from letta_common.errors import LLMUnavailable, ModelNotFound
from letta_common.values.ids import new_id
from letta_memory.settings import MemorySettings
from letta_memory.wiring import build
from letta_rpc.service import Deps, Service
from tests.support.rpc import Identities, Transport, running

ANN = Actor("org-a", "user-ann")
BOB = Actor("org-b", "user-bob")
_START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
_ticks = count()


class WordEmbedder(embedding_service_pb2_grpc.EmbeddingServiceServicer):
    """Embeds a text as the sum of its words, so that texts with common words are near; knows two synonyms."""

    def __init__(self) -> None:
        self.down = False
        self.calls = 0
        self.sizes = {"": 512, "test/words": 512, "test/small": 64}
        """Components of the vectors of each model."""
        self.failing: set[str] = set()
        """Models that are away."""
        self.organizations: set[str] = set()
        """Those that background work named."""

    async def Embed(self, request: embedding_service_pb2.EmbedRequest, context: object) -> Any:
        self.calls += 1
        if self.down or request.model in self.failing:
            raise LLMUnavailable("the embedder is down")
        size = self.sizes.get(request.model)
        if size is None:
            raise ModelNotFound(f"no provider offers {request.model}")
        if request.background:
            self.organizations.add(request.organization_id)
        vectors = [embedding_service_pb2.Embedding(values=_vector(text, size)) for text in request.texts]
        return embedding_service_pb2.EmbedResponse(embeddings=vectors, model=request.model or "test/words")


def _vector(text: str, size: int) -> list[float]:
    values = [0.0] * size
    values[-1] = 0.1
    for word in text.lower().replace(".", " ").split():
        meaning = {"automobile": "car"}.get(word, word)
        values[int.from_bytes(hashlib.sha256(meaning.encode()).digest()[:4]) % (size - 1)] += 1.0
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


class Memory:
    """Stubs of every service of memory, and what tests make with them."""

    ANN, BOB = ANN, BOB
    FILE_BYTES = 2 << 20
    """Bytes of the largest file."""

    def __init__(self, channel: grpc.aio.Channel, identities: Identities, embedder: WordEmbedder) -> None:
        self.contexts = context_service_pb2_grpc.ContextServiceStub(channel)
        self.history = block_history_service_pb2_grpc.BlockHistoryServiceStub(channel)
        self.blocks = block_service_pb2_grpc.BlockServiceStub(channel)
        self.archives = archive_service_pb2_grpc.ArchiveServiceStub(channel)
        self.passages = passage_service_pb2_grpc.PassageServiceStub(channel)
        self.folders = folder_service_pb2_grpc.FolderServiceStub(channel)
        self.agent_files = agent_file_service_pb2_grpc.AgentFileServiceStub(channel)
        self.identities = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self.files = file_service_pb2_grpc.FileServiceStub(channel)
        self.reviews = memory_review_service_pb2_grpc.MemoryReviewServiceStub(channel)
        self.messages = message_service_pb2_grpc.MessageServiceStub(channel)
        self.embedder = embedder
        self._identities = identities

    @staticmethod
    def message(role: int, text: str, **more: Any) -> message_pb2.Message:
        """Make a message."""
        return message(role, text, **more)

    @staticmethod
    def texts(bodies: Any) -> list[str]:
        """Return the texts of serialized messages."""
        return [message_pb2.Message.FromString(body).parts[0].text.text for body in bodies]

    async def edit(self, agent_id: str, label: str, *, key: str = "", fence: int = 1, **kind: Any) -> Any:
        """Edit a block as a memory tool does."""
        request = context_service_pb2.EditBlockRequest(
            agent_id=agent_id,
            conversation_id=agent_id,
            fence=fence,
            idempotency_key=key or new_id("run"),
            label=label,
            **kind,
        )
        return await self.contexts.EditBlock(request, timeout=10)

    async def values(self, agent_id: str) -> dict[str, str]:
        """Return the values of an agent's blocks."""
        request = context_service_pb2.ListAgentMemoriesRequest(agent_ids=[agent_id])
        answer = await self.contexts.ListAgentMemories(request, timeout=10)
        return {block.label: block.value for found in answer.memories for block in found.blocks}

    @contextmanager
    def actor(self, actor: Actor) -> Iterator[None]:
        """Act as somebody."""
        with acting_as(self._identities.sign(actor)):
            yield

    async def agent(self, *labels: str, name: str = "Ada", system: str = "You are Ada.") -> str:
        """Make an agent with blocks of these labels, each with its label as value."""
        agent_id = new_id("agent")
        request = context_service_pb2.ProvisionAgentRequest(
            agent_id=agent_id,
            agent_name=name,
            new_blocks=[block_pb2.Block(label=label, value=label) for label in labels],
            messages=[message(1, system)],
        )
        await self.contexts.ProvisionAgent(request, timeout=10)
        return agent_id

    async def begin(self, agent_id: str, *texts: str, run_id: str = "", fence: int = 1) -> tuple[str, Any]:
        """Begin a run with user messages; return its id and the answer."""
        run_id = run_id or new_id("run")
        request = context_service_pb2.BeginStepRequest(
            agent_id=agent_id,
            conversation_id=agent_id,
            run_id=run_id,
            fence=fence,
            input=[message(2, text, run_id=run_id) for text in texts],
        )
        return run_id, await self.contexts.BeginStep(request, timeout=10)

    async def commit(self, agent_id: str, run_id: str, *texts: str, step: int = 0, fence: int = 1, **more: Any) -> Any:
        """Commit a step with what the model said."""
        request = context_service_pb2.CommitStepRequest(
            agent_id=agent_id,
            conversation_id=agent_id,
            run_id=run_id,
            fence=fence,
            step_index=step,
            messages=[message(3, text, run_id=run_id) for text in texts],
            **more,
        )
        return await self.contexts.CommitStep(request, timeout=10)


def message(role: int, text: str, **more: Any) -> message_pb2.Message:
    """Make a message of one text part, each a second later than the one before."""
    part = message_pb2.ContentPart(text=message_pb2.TextContent(text=text))
    made = message_pb2.Message(id=new_id("message"), role=role, parts=[part], **more)
    made.created_at.FromDatetime(_START + timedelta(seconds=next(_ticks)))
    return made


@asynccontextmanager
async def remembering(transport: Transport, database_url: str) -> AsyncIterator[Memory]:
    """Run memory with its embedder."""
    identities, embedder = Identities(), WordEmbedder()
    add = embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server
    async with running(Service("llm_gateway", ((add, embedder),)), "local", identities=identities) as gateway:
        settings = MemorySettings(
            database_url=SecretStr(database_url),
            embed_messages=True,
            embedding_pause_seconds=0.05,
            pool_size=4,
            file_bytes=Memory.FILE_BYTES,
            file_pause_seconds=0.05,
            review_pause_seconds=0.05,
        )
        service = await build(settings, Deps({"llm_gateway": gateway}))
        async with running(service, transport, identities=identities) as channel:
            yield Memory(channel, identities, embedder)


@pytest.fixture(scope="module", params=["network", "local"])
async def shared(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Memory | None]:
    """Run one memory for the tests of a module; none where it says that each test needs a memory `ALONE`."""
    if getattr(request.module, "ALONE", False):
        yield None
        return
    async with remembering(request.param, database_url) as memory:
        yield memory


@pytest.fixture
async def memory(request: pytest.FixtureRequest, shared: Memory | None, database_url: str) -> AsyncIterator[Memory]:
    """Give a memory over both transports, and act as Ann."""
    async with AsyncExitStack() as stack:
        transport = request.node.callspec.params["shared"]
        memory = shared or await stack.enter_async_context(remembering(transport, database_url))
        with memory.actor(ANN):
            yield memory


@pytest.fixture
def stranger(memory: Any) -> Any:
    """Act in an organization of one's own, so that lists are empty at first."""
    return memory.actor(Actor(new_id("org"), "user-x"))
