"""The stores in memory: for tests, and held to the same contract as those in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from letta_common.actor import Actor
from letta_common.errors import (
    AgentNotFound,
    BlockLabelTaken,
    BlockNotFound,
    IdempotencyConflict,
    MessageNotFound,
)
from letta_common.ids import derived_id
from letta_memory.domain.blocks import Block
from letta_memory.domain.contexts import (
    AgentMemory,
    Committed,
    Context,
    Edited,
    NewAgent,
    NewConversation,
    NewMessage,
    Opening,
    Owner,
    Reset,
    Status,
    Step,
    owner_refusal,
    refusal,
)
from letta_memory.domain.edits import BlockEdit, Create, Delete
from letta_memory.store.fake_state import Conversation, FakeState, edited


class FakeContextStore:
    """Contexts in memory."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    async def begin_step(self, actor: Actor, owner: Owner, messages: Sequence[NewMessage]) -> Context:
        """Raise the fence, append the input once, read the context."""
        org = actor.organization_id
        conversation = self._owned(actor, owner.agent_id, owner.conversation_id, owner.fence)
        if messages and (org, owner.run_id, -1) not in self._state.steps:
            self._refuse_known_ids(org, messages)
            self._state.steps[org, owner.run_id, -1] = 0
            conversation.append(owner.conversation_id, messages, owner.run_id)
        conversation.fence = owner.fence
        done = [index for known, run, index in self._state.steps if (known, run) == (org, owner.run_id) and index >= 0]
        last = max(done, default=None)
        archive_id = self._state.archive_agents.get((org, owner.agent_id), "")
        archive = self._state.archives.get((org, archive_id))
        return Context(
            blocks=tuple(self._state.blocks_of(actor, owner.agent_id, owner.conversation_id)),
            messages=tuple(message.body for message in conversation.window()),
            last_step=last,
            stop_reason=0 if last is None else self._state.steps[org, owner.run_id, last],
            message_count=len(conversation.messages),
            passage_count=archive.passage_count if archive else 0,
        )

    async def withdraw_input(self, actor: Actor, owner: Owner) -> bool:
        """Remove the input of a run without committed steps; say whether there was any."""
        conversation = self._owned(actor, owner.agent_id, owner.conversation_id, owner.fence)
        steps = [key for key in self._state.steps if key[:2] == (actor.organization_id, owner.run_id)]
        if [index for *_, index in steps] != [-1]:
            return False
        conversation.fence = owner.fence
        del self._state.steps[steps[0]]
        first = conversation.first_seq
        gone = [m for m in conversation.messages if m.message.run_id == owner.run_id and m.seq != first]
        for stored in gone:
            self._state.places[stored.message.id] = (stored.message.created_at, stored.seq)
            conversation.messages.remove(stored)
        return True

    async def commit_step(self, actor: Actor, owner: Owner, step: Step) -> Committed:
        """Append a step's messages once."""
        key = (actor.organization_id, owner.run_id, step.index)
        conversation = self._owned(actor, owner.agent_id, owner.conversation_id, owner.fence)
        repeated = key in self._state.steps
        if not repeated:
            self._append_step(actor, owner, step, conversation)
            self._state.steps[key] = step.stop_reason
            conversation.fence = owner.fence
        blocks = self._state.blocks_of(actor, owner.agent_id, owner.conversation_id)
        present = {block.id for block in blocks}
        return Committed(
            changed=tuple(block for block in blocks if step.known_blocks.get(block.id) != block.version),
            detached=tuple(block_id for block_id in step.known_blocks if block_id not in present),
            repeated=repeated,
        )

    def _append_step(self, actor: Actor, owner: Owner, step: Step, conversation: Conversation) -> None:
        window = step.window
        summary = window.summary if window else None
        messages = [*step.messages, summary] if summary else list(step.messages)
        self._refuse_known_ids(actor.organization_id, messages)
        first = conversation.next_seq
        if window is not None:
            places = {stored.message.id: stored.seq for stored in conversation.messages}
            places |= {message.id: first + place for place, message in enumerate(messages)}
            if window.first_kept_id and window.first_kept_id not in places:
                raise MessageNotFound("the window begins at a message that the conversation does not have")
            conversation.window_seq = places[window.first_kept_id] if window.first_kept_id else first
            conversation.window_seq += len(messages) if window.cleared else 0
            conversation.summary_seq = first + len(messages) - 1 if summary else 0
        conversation.append(owner.conversation_id, messages, owner.run_id)

    async def edit_block(self, actor: Actor, edit: BlockEdit, *, new_id: str, now: datetime) -> Edited:
        """Make an edit once."""
        org = actor.organization_id
        conversation = self._owned(actor, edit.agent_id, edit.conversation_id, edit.fence)
        conversation.fence = edit.fence
        known = self._state.edits.get((org, edit.key))
        if known is not None:
            if known[0] != edit.digest():
                raise refusal(Status.OTHER_EDIT, edit, ())
            return Edited(known[1], repeated=True)
        blocks = {block.label: block for block in self._state.blocks_of(actor, edit.agent_id, edit.conversation_id)}
        block = blocks.get(edit.label)
        if block is None and not isinstance(edit.edit, Create):
            raise refusal(Status.NO_BLOCK, edit, sorted(blocks))
        made = block or Block(new_id, edit.label, created_by_id=actor.user_id, version=0, created_at=now)
        changed = edited(made, edit)
        changed = replace(changed, version=made.version + 1, last_updated_by_id=actor.user_id, updated_at=now)
        if changed.label != made.label:
            self._relabel(actor, made, changed.label)
        self._state.blocks[org, changed.id] = changed
        tables = (self._state.agent_blocks.setdefault((org, edit.agent_id), {}), conversation.blocks)
        if block is None:
            tables[0][changed.label] = changed.id
        if isinstance(edit.edit, Delete):
            for table in tables:
                if table.get(made.label) == made.id:
                    del table[made.label]
        self._state.edits[org, edit.key] = (edit.digest(), changed)
        return Edited(changed, repeated=False)

    def _relabel(self, actor: Actor, block: Block, label: str) -> None:
        tables = self._state.holders(actor, block.id)
        if any(label in table for table in tables):
            raise BlockLabelTaken("another block of the agent has this label", label=label)
        for table in tables:
            table[label] = table.pop(block.label)

    async def provision_agent(self, actor: Actor, agent: NewAgent) -> AgentMemory:
        """Make an agent's memory unless it exists."""
        org = actor.organization_id
        if (org, agent.agent_id) not in self._state.agents:
            attached = [self._state.block(actor, block_id) for block_id in agent.block_ids]
            labels = [block.label for block in (*agent.new_blocks, *attached)]
            if len(set(labels)) < len(labels):
                raise BlockLabelTaken(f"two blocks of agent {agent.agent_id} have one label")
            self._state.blocks |= {(org, block.id): block for block in agent.new_blocks}
            self._state.agent_blocks[org, agent.agent_id] = {
                block.label: block.id for block in (*agent.new_blocks, *attached)
            }
            self._state.agents[org, agent.agent_id] = agent.name
            self._state.embedders[org, agent.agent_id] = agent.embedder
            made = self._state.conversations[org, agent.agent_id] = Conversation(agent.agent_id)
            made.append(agent.agent_id, agent.messages)
        return (await self.agent_memories(actor, [agent.agent_id], blocks=True))[0]

    async def set_embedder(self, actor: Actor, agent_id: str, embedder: str) -> None:
        """Set what embeds an agent's archive; one made for it is embedded anew."""
        self._state.require_agent(actor, agent_id)
        org = actor.organization_id
        self._state.embedders[org, agent_id] = embedder
        for (owner, archive_id), archive in self._state.archives.items():
            if (owner, archive.owner_agent_id) == (org, agent_id) and embedder not in ("", archive.embedder):
                self._state.reembed(org, archive_id, embedder, None)

    async def deprovision_agent(self, actor: Actor, agent_id: str) -> None:
        """Remove what belongs to an agent alone."""
        org, state = actor.organization_id, self._state
        for key in [key for key, known in state.conversations.items() if key[0] == org and known.agent_id == agent_id]:
            del state.conversations[key]
        state.agents.pop((org, agent_id), None)
        state.agent_blocks.pop((org, agent_id), None)
        state.archive_agents.pop((org, agent_id), None)
        for key, archive in list(state.archives.items()):
            shared = any(held == archive.id for (known, _), held in state.archive_agents.items() if known == org)
            if key[0] == org and archive.owner_agent_id == agent_id and not shared:
                del state.archives[key]

    async def provision_conversation(self, actor: Actor, conversation: NewConversation) -> tuple[list[str], list[str]]:
        """Make a conversation unless it exists; return isolated block ids and message ids."""
        org, new = actor.organization_id, conversation
        if (org, new.agent_id) not in self._state.agents:
            raise AgentNotFound(f"there is no agent {new.agent_id}", agent_id=new.agent_id)
        known = self._state.conversations.get((org, new.conversation_id))
        if known is None:
            known = Conversation(new.agent_id)
            blocks = {block.label: block for block in self._state.blocks_of(actor, new.agent_id)}
            for label in new.isolated_labels:
                if label not in blocks:
                    raise BlockNotFound(f"agent {new.agent_id} has no block '{label}'", label=label)
                copy = replace(blocks[label], id=derived_id("block", org, new.conversation_id, label))
                self._state.blocks[org, copy.id] = copy
                known.blocks[label] = copy.id
            known.append(new.conversation_id, new.messages)
            self._state.conversations[org, new.conversation_id] = known
        isolated = [known.blocks[label] for label in sorted(known.blocks)]
        return isolated, [message.id for message in known.window()]

    async def deprovision_conversation(self, actor: Actor, agent_id: str, conversation_id: str) -> None:
        """Remove a conversation and its messages."""
        known = self._state.conversations.get((actor.organization_id, conversation_id))
        if known is not None and known.agent_id == agent_id:
            del self._state.conversations[actor.organization_id, conversation_id]

    async def reset_conversation(self, actor: Actor, reset: Reset) -> None:
        """Forget the messages and begin with these, or with the first one."""
        messages = reset.messages
        known = self._known(actor, reset.agent_id, reset.conversation_id)
        if 0 < reset.fence < known.fence:
            raise owner_refusal(Status.FENCED, reset.agent_id, reset.conversation_id, fence=known.fence)
        if messages and any(stored.message.id == messages[0].id for stored in known.messages):
            return
        known.fence = max(known.fence, reset.fence)
        for stored in known.messages:
            self._state.places[stored.message.id] = (stored.message.created_at, stored.seq)
        known.first_seq = known.window_seq = known.next_seq if messages else known.first_seq
        known.messages = [stored for stored in known.messages if stored.seq == known.first_seq]
        known.append(reset.conversation_id, messages)
        known.summary_seq = 0

    async def context(self, actor: Actor, agent_id: str, conversation_id: str) -> Context:
        """Return the context, changing nothing."""
        known, state = self._known(actor, agent_id, conversation_id), self._state
        archive_id = state.archive_agents.get((actor.organization_id, agent_id), "")
        archive = state.archives.get((actor.organization_id, archive_id))
        return Context(
            blocks=tuple(state.blocks_of(actor, agent_id, conversation_id)),
            messages=tuple(message.body for message in known.window()),
            last_step=None,
            stop_reason=0,
            message_count=len(known.messages),
            passage_count=archive.passage_count if archive else 0,
        )

    async def opening(self, actor: Actor, agent_id: str, conversation_id: str) -> Opening | None:
        """Return the first message of a conversation, if it has one."""
        known = self._known(actor, agent_id, conversation_id)
        first = next((stored.message for stored in known.messages if stored.seq == known.first_seq), None)
        return Opening(first.id, first.role, first.body) if first is not None else None

    async def replace_body(self, actor: Actor, conversation_id: str, message_id: str, body: bytes) -> None:
        """Write another body of a message that search does not read."""
        known = self._state.conversations.get((actor.organization_id, conversation_id))
        for stored in known.messages if known is not None else ():
            if stored.message.id == message_id:
                stored.message = replace(stored.message, body=body)

    async def agent_memories(self, actor: Actor, agent_ids: Sequence[str], *, blocks: bool) -> list[AgentMemory]:
        """Return what these agents keep, in the order asked for."""
        org = actor.organization_id
        return [
            AgentMemory(
                agent_id=agent_id,
                blocks=tuple(self._state.blocks_of(actor, agent_id)) if blocks else (),
                message_ids=tuple(message.id for message in self._state.conversations[org, agent_id].window()),
            )
            for agent_id in agent_ids
            if (org, agent_id) in self._state.agents
        ]

    async def attach_block(self, actor: Actor, agent_id: str, block_id: str) -> None:
        """Attach a block."""
        self._state.require_agent(actor, agent_id)
        block = self._state.block(actor, block_id)
        table = self._state.agent_blocks[actor.organization_id, agent_id]
        if table.get(block.label, block_id) != block_id:
            raise BlockLabelTaken(f"agent {agent_id} has another block of that label", block_id=block_id)
        table[block.label] = block_id

    async def detach_block(self, actor: Actor, agent_id: str, block_id: str) -> None:
        """Detach a block."""
        self._state.require_agent(actor, agent_id)
        table = self._state.agent_blocks[actor.organization_id, agent_id]
        for label in [label for label, held in table.items() if held == block_id]:
            del table[label]

    def _known(self, actor: Actor, agent_id: str, conversation_id: str) -> Conversation:
        known = self._state.conversations.get((actor.organization_id, conversation_id))
        if known is None or known.agent_id != agent_id:
            raise owner_refusal(Status.NO_CONVERSATION, agent_id, conversation_id, fence=0)
        return known

    def _owned(self, actor: Actor, agent_id: str, conversation_id: str, fence: int) -> Conversation:
        known = self._known(actor, agent_id, conversation_id)
        if fence < known.fence:
            raise owner_refusal(Status.FENCED, agent_id, conversation_id, fence=known.fence)
        return known

    def _refuse_known_ids(self, org: str, messages: Sequence[NewMessage]) -> None:
        new = {message.id for message in messages}
        for (known, _), conversation in self._state.conversations.items():
            if known == org and any(stored.message.id in new for stored in conversation.messages):
                raise IdempotencyConflict("a message with one of these ids exists already")


class FakePruneStore:
    """Old records in memory."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    async def prune_steps(self, before: datetime, limit: int) -> int:
        """Remove some records of steps committed before a time; return how many."""
        return self._state.steps.prune(before, limit)

    async def prune_places(self, before: datetime, limit: int) -> int:
        """Remove some places of rows deleted before a time; return how many."""
        return self._state.places.prune(before, limit)
