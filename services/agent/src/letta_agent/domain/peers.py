"""What the rules need of the other services, in the words of the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from letta.common.v1 import letta_message_pb2, message_pb2, model_settings_pb2, usage_pb2
from letta.memory.v1 import block_pb2
from letta.tools.v1 import tool_pb2
from letta_common.actor import Actor

Block = block_pb2.Block
ContentPart = message_pb2.ContentPart
LettaMessage = letta_message_pb2.LettaMessage
Message = message_pb2.Message
ModelSettings = model_settings_pb2.ModelSettings
StopReason = usage_pb2.StopReason
TokenUsage = usage_pb2.TokenUsage
Tool = tool_pb2.Tool


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation and the fence under which its owner writes."""

    agent_id: str
    conversation_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The context of a conversation at the beginning of a run or of a take-over."""

    blocks: tuple[Block, ...]
    messages: tuple[bytes, ...]
    last_step: int | None = None
    stop_reason: StopReason.ValueType = StopReason.STOP_REASON_UNSPECIFIED
    message_count: int = 0
    passage_count: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """A context made smaller: the summary that stands for what was evicted, and the oldest message kept."""

    summary: Message | None = None
    first_kept_message_id: str = ""
    cleared: bool = False
    """Nothing stays but the first message of the conversation."""


@dataclass(frozen=True, slots=True)
class StepCommit:
    """The messages of one step, to be appended once."""

    run_id: str
    step_index: int
    messages: tuple[Message, ...]
    stop_reason: StopReason.ValueType
    known_blocks: Mapping[str, int]
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """Answer to a commit: what is new about the agent's blocks."""

    changed_blocks: tuple[Block, ...] = ()
    detached_block_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentMemory:
    """What an agent keeps in memory."""

    blocks: tuple[Block, ...] = ()
    message_ids: tuple[str, ...] = ()


class EditKind(Enum):
    """Kinds of edits that the memory tools make."""

    APPEND = "append"
    REPLACE = "replace"
    INSERT = "insert"
    RETHINK = "rethink"
    CREATE = "create"
    DELETE = "delete"
    RENAME = "rename"


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit of a block by a memory tool. `text` is the new text, `old_text` what it replaces."""

    kind: EditKind
    label: str
    text: str = ""
    old_text: str = ""
    line: int = -1
    all_occurrences: bool = False
    description: str | None = None
    new_label: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """What a search tool asks for. Empty fields do not filter."""

    query: str = ""
    limit: int = 0
    tags: tuple[str, ...] = ()
    match_all_tags: bool = False
    roles: tuple[str, ...] = ()
    start: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One result of a search."""

    id: str
    text: str
    created_at: str
    role: str = ""
    tags: tuple[str, ...] = ()


class MemoryPeer(Protocol):
    """The memory service."""

    async def provision(
        self,
        agent_id: str,
        name: str,
        new_blocks: Sequence[Block],
        block_ids: Sequence[str],
        messages: Sequence[Message],
        *,
        embedding: str = "",
    ) -> AgentMemory:
        """Make the memory of an agent; a repeat changes nothing. Raises BlockNotFound."""
        ...

    async def set_embedding(self, agent_id: str, embedding: str) -> None:
        """Set what embeds an agent's archive; one made for it is embedded anew."""
        ...

    async def deprovision(self, agent_id: str) -> None:
        """Remove what belongs to an agent alone; a repeat changes nothing."""
        ...

    async def provision_conversation(
        self, agent_id: str, conversation_id: str, messages: Sequence[Message], isolated_labels: Sequence[str]
    ) -> tuple[str, ...]:
        """Make the memory of a further conversation; return the copies of blocks made. Raises BlockNotFound."""
        ...

    async def deprovision_conversation(self, agent_id: str, conversation_id: str) -> None:
        """Remove a conversation; a repeat changes nothing."""
        ...

    async def begin_step(self, thread: Thread, run_id: str, messages: Sequence[Message]) -> Begun:
        """Raise the fence, append the input once, return the context. Raises Fenced."""
        ...

    async def withdraw_input(self, thread: Thread, run_id: str) -> bool:
        """Take back the input of a run without committed steps; say whether there was any. Raises Fenced."""
        ...

    async def commit_step(self, thread: Thread, step: StepCommit) -> Committed:
        """Append the messages of a step once. Raises Fenced."""
        ...

    async def edit_block(self, thread: Thread, key: str, edit: Edit) -> Block:
        """Edit a block once for each key. Raises the errors of blocks and edits, and Fenced."""
        ...

    async def insert_passage(self, thread: Thread, key: str, text: str, tags: Sequence[str]) -> None:
        """Store a text in the agent's archive, once for each key."""
        ...

    async def search_passages(self, agent_id: str, search: Search) -> list[Found]:
        """Search the agent's archive, best first."""
        ...

    async def search_messages(self, thread: Thread, search: Search) -> list[Found]:
        """Search the messages of the agent, best first."""
        ...

    async def run_messages(self, run_id: str) -> list[LettaMessage]:
        """Return what a client sees of the messages that a run made, input excepted, in order."""
        ...

    async def memories(self, agent_ids: Sequence[str], *, blocks: bool) -> dict[str, AgentMemory]:
        """Return what agents keep in memory."""
        ...

    async def reset(self, thread: Thread, messages: Sequence[Message]) -> None:
        """Forget the messages of a conversation and begin anew with these. Raises Fenced."""
        ...

    async def context(self, agent_id: str, conversation_id: str) -> Begun:
        """Return the context of a conversation, changing nothing. Raises ConversationNotFound."""
        ...

    async def set_system(self, agent_id: str, conversation_id: str, text: str) -> None:
        """Replace the system prompt that opens a conversation. Raises ConversationNotFound."""
        ...

    async def attach_block(self, agent_id: str, block_id: str) -> None:
        """Attach a block. Raises BlockNotFound and BlockLabelTaken."""
        ...

    async def detach_block(self, agent_id: str, block_id: str) -> None:
        """Detach a block."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked. Messages are serialized `Message`s, handed on unparsed."""

    model: str
    system: str
    messages: tuple[bytes, ...]
    tools: tuple[ToolSchema, ...] = ()
    settings: ModelSettings = field(default_factory=ModelSettings)
    required: bool = False
    forced_tool: str = ""
    agent_id: str = ""
    run_id: str = ""
    step_id: str = ""
    purpose: str = "step"


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as a model sees it."""

    name: str
    description: str
    parameters: str
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model made of a prompt."""

    parts: tuple[ContentPart, ...]
    usage: TokenUsage = field(default_factory=TokenUsage)
    model: str = ""
    provider_type: str = ""
    context_window: int = 0
    cut: bool = False
    warnings: tuple[str, ...] = ()
    """What could not be asked as the prompt says."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A fragment of an answer: of the part at `index`, whose beginning brings the part as far as it is known."""

    index: int
    started: ContentPart | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the gateway describes it."""

    handle: str
    name: str
    provider_type: str
    provider_name: str = ""
    provider_category: str = "base"
    endpoint_type: str = ""
    endpoint: str = ""
    display_name: str = ""
    context_window: int = 128_000
    temperature: float = 1.0
    max_tokens: int = 0
    enable_reasoner: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingInfo:
    """An embedding model as the gateway describes it."""

    handle: str
    name: str
    endpoint_type: str
    endpoint: str = ""
    dimension: int = 0
    chunk_size: int = 300
    batch_size: int = 32


class ModelPeer(Protocol):
    """The language model gateway."""

    async def generate(self, prompt: Prompt) -> Generation:
        """Generate and answer once. Raises the LLM errors and ContextWindowExceeded."""
        ...

    def stream(self, prompt: Prompt) -> AsyncIterator[Delta | Generation]:
        """Generate and answer as the model speaks; the last item is the whole."""
        ...

    async def model(self, handle: str) -> ModelInfo:
        """Return a model; an empty handle asks for the default. Raises ModelNotFound."""
        ...

    async def embedding_model(self, handle: str) -> EmbeddingInfo:
        """Return an embedding model; an empty handle asks for the default. Raises ModelNotFound."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool that the tools service executes."""

    tool_id: str
    arguments: str
    key: str
    agent_id: str
    environment: Mapping[str, str] = field(default_factory=dict)
    agent_state: str = ""
    tool_version: int = 0
    """The version that the model chose; one that is known there needs no look at the registry."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of a call."""

    text: str
    is_error: bool = False
    result: str = ""
    """What the tool returned, JSON; empty: the text."""
    stdout: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()
    state_changes: str = ""
    """What the tool changed in the agent's state, a JSON object."""


@dataclass(frozen=True, slots=True)
class Attached:
    """Those of an agent's tools that exist, in the order asked. With `unchanged` the caller has them."""

    tools: tuple[Tool, ...]
    etag: str
    unchanged: bool = False


class ToolPeer(Protocol):
    """The tools service."""

    async def attached(self, tool_ids: Sequence[str], etag: str = "") -> Attached:
        """Return those of an agent's tools that still exist, or that none has changed since `etag`."""
        ...

    async def resolve(self, tool_ids: Sequence[str], names: Sequence[str] = ()) -> list[Tool]:
        """Return tools by id and by name, in the order asked. Raises ToolNotFound."""
        ...

    async def execute(self, call: Call) -> CallResult:
        """Execute a call, once for each key."""
        ...


class CredentialPeer(Protocol):
    """The auth service."""

    async def issue(self, actor: Actor, run_id: str) -> bytes:
        """Return a signed context for work on a run. Raises Unauthenticated when the principal may act no more."""
        ...
