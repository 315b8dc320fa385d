"""Runs as storage keeps them: what is admitted, claimed, checkpointed and closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol

from letta.agent.v1 import agent_pb2, run_pb2, run_service_pb2, step_pb2, step_service_pb2, stored_pb2
from letta.common.v1 import usage_pb2
from letta_common.actor import Actor
from letta_common.values.paging import Page

Agent = agent_pb2.Agent
ListRunsRequest = run_service_pb2.ListRunsRequest
ListStepsRequest = step_service_pb2.ListStepsRequest
RunRequest = run_pb2.RunRequest
RunStatus = run_pb2.RunStatus
Step = step_pb2.Step
StepMetrics = step_pb2.StepMetrics
StopReason = usage_pb2.StopReason
TokenUsage = usage_pb2.TokenUsage
StoredInput = stored_pb2.StoredInput
StoredStep = stored_pb2.StoredStep

TOKENS = tuple(field.name for field in TokenUsage.DESCRIPTOR.fields)
"""The counts of tokens by name."""
ACTIVE = (RunStatus.RUN_STATUS_CREATED, RunStatus.RUN_STATUS_RUNNING)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that asks for admission."""

    id: str
    agent_id: str
    conversation_id: str
    key: str
    request_hash: bytes
    request: bytes
    input: bytes
    background: bool = False
    run_type: str = "send_message"
    most_waiting: int = 0
    """Most runs that may wait for their turn; 0: this one does not wait."""
    approved_calls: tuple[str, ...] | None = None
    """Calls, or the message that made them, that the input answers; None when it is no answer."""
    answers: tuple[str, ...] | None = None
    """The same with what is answered, in order."""
    denies: bool = False
    """Calls that wait are denied when the run begins."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """By whom and for how long conversations are held."""

    owner: str
    milliseconds: int


class AdmissionOutcome(Enum):
    """What admission came to."""

    CLAIMED = "claimed"
    """The run holds the conversation now."""
    KNOWN = "known"
    """The same key came before; the answer is that run's."""
    BUSY = "busy"
    """Another run holds the conversation."""
    FULL = "full"
    """Another run holds the conversation, and as many wait for it as may."""
    QUEUED = "queued"
    """The run is stored and waits for the ones before it."""
    PENDING = "pending"
    """Tool calls wait for approval, and the input does not answer them."""
    NOT_PENDING = "not_pending"
    """The input answers calls, but others or none wait."""
    ANSWERED = "answered"
    """The input answers calls as an earlier run did."""
    NO_AGENT = "no_agent"
    NO_CONVERSATION = "no_conversation"


@dataclass(frozen=True, slots=True)
class Definition:
    """What a run needs to know of its agent."""

    state: Agent
    tool_ids: tuple[str, ...] = ()
    secrets: bytes = b""
    context_tokens: int = 0
    """Size of the conversation's context after its last step, 0 when unknown."""


@dataclass(frozen=True, slots=True)
class HeldCalls:
    """Tool calls that wait for approval."""

    message_id: str
    call_ids: tuple[str, ...]
    shown: bytes = b""
    """The request for approval as clients see it, serialized."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Answer to a run that asked for admission."""

    outcome: AdmissionOutcome
    run_id: str = ""
    fence: int = 0
    definition: Definition | None = None
    request_hash: bytes = b""
    """Of the run that is known by the key."""
    pending: HeldCalls | None = None
    """What waits for approval."""
    resumes: bool = False
    """The run goes on with the input of the one before it, which failed."""


@dataclass(frozen=True, slots=True)
class RunKey:
    """A run, its conversation, and the fence under which the run's owner writes there."""

    organization_id: str
    agent_id: str
    conversation_id: str
    run_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class RunJob:
    """A run to work on."""

    held: RunKey
    actor: Actor
    definition: Definition
    request: RunRequest
    input: StoredInput
    claims: int = 0
    """Owners before this one; each has a range of stream positions of its own."""
    background: bool = False
    run_type: str = "send_message"
    cancel_requested: bool = False
    waiting: HeldCalls | None = None
    """Tool calls that waited for approval when the run began."""


@dataclass(frozen=True, slots=True)
class StepSummary:
    """How a step went."""

    step_index: int
    id: str
    model: str
    provider_type: str
    context_window: int
    usage: TokenUsage
    stop_reason: int
    status: int
    started_ns: int
    step_ns: int
    llm_started_ns: int
    llm_ns: int
    tool_ns: int
    tools_used: tuple[str, ...] = ()
    error_type: str = ""
    """What the run failed with in this step. Stores take it, and the message, from the end of the run."""
    error_message: str = ""
    warnings: tuple[str, ...] = ()
    """What the model could not be asked as the agent is."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended."""

    status: RunStatus.ValueType
    stop_reason: StopReason.ValueType
    steps: tuple[StepSummary, ...] = ()
    error: str = ""
    """What went wrong, a JSON object with `error_type` and `message`; the step that failed is stored with both."""
    context_tokens: int = 0
    ttft_ns: int = 0
    pending: HeldCalls | None = None
    """The calls that now wait for approval."""
    keeps_approval: bool = False
    """The calls that waited when the run began still wait."""
    keeps_input: bool = False
    """The run failed, and what it was sent stays in the conversation."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as clients see it."""

    id: str
    agent_id: str
    conversation_id: str
    status: int
    stop_reason: int
    background: bool
    run_type: str
    request: bytes
    error: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    ttft_ns: int
    step_count: int
    usage: TokenUsage
    context_tokens: int
    cancel_requested: bool
    claims: int

    @property
    def active(self) -> bool:
        """Say whether the run has not ended."""
        return self.status in ACTIVE


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of a run's stream."""

    organization_id: str
    run_id: str
    seq_id: int
    event: bytes


@dataclass(frozen=True, slots=True)
class Overdue:
    """A request for approval that nobody answered in time."""

    actor: Actor
    """Whose run asks."""
    agent_id: str
    conversation_id: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of the leases that were to be renewed."""

    kept: frozenset[str]
    """Runs whose conversation is still held."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What other replicas ask of the runs of this one."""

    cancelled: frozenset[str]
    """Runs that somebody asked to end."""
    followed: frozenset[str]
    """Runs whose events somebody waits for."""


@dataclass(frozen=True, slots=True)
class FreeSlots:
    """How many more runs a replica has room for."""

    runs: int
    """In all."""
    of_one: int
    """Of one organization that has none here."""
    left: Mapping[str, int] = field(default_factory=dict)
    """Of organizations that have some here; 0 leaves one out."""

    def of(self, organization_id: str) -> int:
        """Return how many more runs of an organization there is room for."""
        return self.left.get(organization_id, self.of_one)


class RunStore(Protocol):
    """What the rules need from storage for one organization's runs."""

    async def admit(self, actor: Actor, run: NewRun, lease: LeaseTerms) -> Admission:
        """Admit a run and claim its conversation, or say why not. One statement."""
        ...

    async def checkpoint(self, held: RunKey, step_index: int, step: StoredStep) -> None:
        """Keep what the model made of a step. One statement. Raises Fenced."""
        ...

    async def get_checkpoints(self, held: RunKey) -> dict[int, StoredStep]:
        """Return what is kept of a run's steps, by index."""
        ...

    async def close(self, held: RunKey, end: RunEnd) -> bool:
        """End a run and free its conversation; say whether another run waits for it. One statement.

        A repeat, or a lost lease, changes nothing.
        """
        ...

    async def raise_fence(self, held: RunKey, above: int) -> int | None:
        """Claim a conversation that is still held again, above a fence; None when it is lost."""
        ...

    async def request_cancel(self, actor: Actor, run_id: str) -> RunRecord:
        """Ask the owner of a run to end it; a run that nobody has begun ends at once. Raises RunNotFound."""
        ...

    async def cancel_waiting(self, actor: Actor, run_id: str) -> bool:
        """End a run that nobody has begun; say whether it was one."""
        ...

    async def reopen(self, actor: Actor, run_id: str) -> bool:
        """Give a run whose request for approval waits back to the queue, to be cancelled; say whether it was one."""
        ...

    async def list_waiting(self, actor: Actor, *, agent_id: str = "", conversation_id: str = "") -> list[str]:
        """Return the runs whose requests for approval wait, of an agent or in a conversation."""
        ...

    async def get(self, actor: Actor, run_id: str) -> RunRecord:
        """Return one run. Raises RunNotFound."""
        ...

    async def list_runs(self, actor: Actor, wanted: ListRunsRequest, page: Page) -> list[RunRecord]:
        """Return a page of runs."""
        ...

    async def delete(self, actor: Actor, run_id: str) -> bool:
        """Remove a run that has ended, its steps and events; say whether it had. Raises RunNotFound."""
        ...

    async def get_by_key(self, actor: Actor, conversation_id: str, key: str) -> str:
        """Return the run that was admitted under this key. Raises RunNotFound."""
        ...

    async def list_steps(self, actor: Actor, wanted: ListStepsRequest, page: Page) -> list[Step]:
        """Return a page of steps."""
        ...

    async def get_step(self, actor: Actor, step_id: str) -> Step:
        """Return one step. Raises StepNotFound."""
        ...

    async def get_step_metrics(self, actor: Actor, step_id: str) -> StepMetrics:
        """Return how long the parts of a step took. Raises StepNotFound."""
        ...

    async def set_feedback(self, actor: Actor, step_id: str, feedback: int, tags: Sequence[str]) -> Step:
        """Store what a person thinks of a step. Raises StepNotFound."""
        ...

    async def list_events(self, actor: Actor, run_id: str, after: int, limit: int) -> list[StoredEvent]:
        """Return events of a run after a position, in order."""
        ...

    async def note_follower(self, actor: Actor, run_id: str, milliseconds: int) -> None:
        """Let whoever works on a run know, for so long, that somebody elsewhere waits for its events."""
        ...


class QueueStore(Protocol):
    """What the background work of a replica needs from storage. These statements span organizations."""

    async def renew(self, held: Sequence[RunKey], lease: LeaseTerms) -> Renewed:
        """Renew the leases of conversations."""
        ...

    async def list_wishes(self, held: Sequence[RunKey]) -> Wishes:
        """Return what other replicas ask of the runs."""
        ...

    async def claim_due(self, lease: LeaseTerms, room: FreeSlots) -> list[RunJob]:
        """Claim conversations whose lease has expired in the middle of a run, or that a run waits for.

        Organizations with work share the room equally. Where it is too small for all, those come first that may have
        most yet. Within one, those come first that are due longest.
        """
        ...

    async def list_overdue(self, before: datetime, limit: int) -> list[Overdue]:
        """Return requests for approval that wait since before a time."""
        ...

    async def append_events(self, events: Sequence[StoredEvent]) -> None:
        """Store events. One statement, not waiting for the disk."""
        ...

    async def forget_orphans(self, before: datetime, limit: int) -> int:
        """Remove runs admitted while their agent was being removed, whose lease is over; return how many."""
        ...

    async def forget_events(self, before: datetime, limit: int) -> int:
        """Remove old events; return how many."""
        ...
