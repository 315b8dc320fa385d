"""The audit entry of a change made by an actor in the request being served."""

from __future__ import annotations

from datetime import datetime

from letta_auth.domain.audit import AuditEntry
from letta_common.actor import Actor, current_request_id


def change(actor: Actor, organization_id: str, at: datetime, action: str, target_id: str) -> AuditEntry:
    """Return the entry that says what the actor did in an organization."""
    return AuditEntry(organization_id, at, actor.user_id, action, target_id, current_request_id())
