"""What fills a context, by kind, in tokens. The counts are estimates: a model's vendor counts in its own way."""

from __future__ import annotations

from dataclasses import dataclass

from letta.common.v1 import message_pb2
from letta.llm.v1.generation_service_pb2 import ToolDefinition
from letta_agent.domain.agents.records import AgentPeers, AgentStore
from letta_agent.domain.context.system_prompt import Sections, facts_of, sections_of
from letta_agent.domain.context.working import BYTES_PER_TOKEN, read_all
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.toolcalls.rules import ToolRules
from letta_agent.domain.toolcalls.toolsets import toolset
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_messages.rendering import text_of

_SUMMARY = message_pb2.MessageRole.MESSAGE_ROLE_SUMMARY
_SYSTEM = message_pb2.MessageRole.MESSAGE_ROLE_SYSTEM


@dataclass(frozen=True, slots=True)
class Overview:
    """What fills the context of a conversation."""

    agent_id: str
    conversation_id: str
    window: int
    instructions: str
    sections: Sections
    messages: tuple[Message, ...]
    """All of them: the stored system prompt, the summary and what follows."""
    message_tokens: int
    """Of the messages, system prompt and summary excepted."""
    schemas: tuple[ToolDefinition, ...]
    message_count: int
    passage_count: int

    @property
    def summary(self) -> str:
        """Return what stands for messages that left the context."""
        return "\n".join(text_of(message) for message in self.messages if message.role == _SUMMARY)

    @property
    def schema_tokens(self) -> int:
        """Return the tokens of the definitions of tools."""
        return sum(tokens_of(schema.name + schema.description + schema.parameters) for schema in self.schemas)

    @property
    def tokens(self) -> int:
        """Return the tokens of everything."""
        texts = (self.instructions, *self.sections, self.summary)
        return sum(map(tokens_of, texts)) + self.message_tokens + self.schema_tokens


class Overviews:
    """Looks into contexts."""

    def __init__(self, store: AgentStore, peers: AgentPeers, clock: Clock) -> None:
        self._store = store
        self._memory = peers.memory
        self._tools = peers.tools
        self._clock = clock

    async def window(self, actor: Actor, agent_id: str, conversation_id: str) -> Overview:
        """Return what fills the context of a conversation. Raises AgentNotFound and ConversationNotFound."""
        agent = await self._store.get(actor, agent_id)
        context = await self._memory.context(agent_id, conversation_id)
        tools = (await self._tools.attached(agent.tool_ids)).tools if agent.tool_ids else ()
        state = agent.state
        facts = facts_of(self._clock.now(), state.timezone, context.message_count, context.passage_count)
        rules = ToolRules(state.tool_rules).described()
        directories = context.directories if context.HasField("directories") else None
        read = [each async for each in read_all(context.messages)]
        return Overview(
            agent_id=agent_id,
            conversation_id=conversation_id,
            window=state.context_window_limit,
            instructions=state.system,
            sections=sections_of(
                state,
                context.blocks,
                directories=directories,
                conversation_id=conversation_id,
                facts=facts,
                rules=rules,
            ),
            messages=tuple(message for message, _ in read),
            message_tokens=sum(tokens for message, tokens in read if message.role not in {_SUMMARY, _SYSTEM}),
            schemas=toolset(tools).schemas,
            message_count=context.message_count,
            passage_count=context.passage_count,
        )


def tokens_of(text: str) -> int:
    """Estimate the tokens of a text."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)
