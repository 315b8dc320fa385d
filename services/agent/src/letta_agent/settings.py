"""Settings of the agent service."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from letta_common.process.settings import Settings


class AgentSettings(Settings):
    """Settings of agents and runs: LETTA_AGENT_X wins over LETTA_X."""

    service: ClassVar[str] = "agent"

    bind: str = Field(default="127.0.0.1:50051", description="Address and port of the gRPC server.")
    pool_size: int = Field(default=10, ge=1, description="Most database connections of this process.")
    run_slots: int = Field(default=256, ge=1, description="Most runs that this process works on at once.")
    run_slots_of_organization: int = Field(
        default=64, ge=1, description="Most runs of one organization that this process works on at once."
    )
    run_queue_of_organization: int = Field(
        default=256, ge=0, description="Most runs of one organization that wait for a slot here; more are refused."
    )
    lease_ms: int = Field(
        default=10_000, ge=300, description="How long a run stays with a process that gives no sign of life."
    )
    run_takeovers: int = Field(
        default=5, ge=0, description="How often a run may be taken over from a process that died before it fails."
    )
    queue_length: int = Field(
        default=100, ge=1, description="Most messages that wait for their turn in one conversation."
    )
    on_pending_approval: Literal["refuse", "deny"] = Field(
        default="refuse",
        description="What a message does while tool calls wait for approval: it is refused, or denies them.",
    )
    approval_seconds: float = Field(
        default=0.0, ge=0, description="How long tool calls wait for approval; 0: until somebody answers."
    )
    approval_default: Literal["deny", "approve"] = Field(
        default="deny", description="The answer to a request for approval that nobody answered in time."
    )
    dispatch_seconds: float = Field(default=1.0, gt=0, description="Wait between two looks for runs without an owner.")
    sweep_seconds: float = Field(default=30.0, gt=0, description="Wait between two looks for agents left half made.")
    event_hours: float = Field(default=3.0, gt=0, description="How long the events of runs can be replayed.")
