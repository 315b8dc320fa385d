"""Which agents lost their last folder, in PostgreSQL; triggers keep it. To list them spans organizations."""

from __future__ import annotations

from collections.abc import Sequence

from letta.memory.v1.agent_file_service_pb2 import FolderLoss
from letta_common.actor import Actor
from letta_postgres.db import Database, retry

_AT_ONCE = 100
_LIST = (
    "select l.position, l.organization_id, l.agent_id from memory.folder_losses l "
    f"where {{of}}l.position > %(after)s::bigint order by l.position limit {_AT_ONCE}"
)
_LIST_OF_ALL, _LIST_OF_ONE = _LIST.format(of=""), _LIST.format(of="l.organization_id = %(org)s and ")
_FORGET = "delete from memory.folder_losses where organization_id = %(org)s and position = any(%(positions)s::bigint[])"


class SqlFolderLossStore:
    """Which agents lost their last folder, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list_losses(self, organization_id: str, after: int) -> list[FolderLoss]:
        """Return some of them after a position, in order; without an organization those of all."""
        values: dict[str, object] = {"after": after}
        if organization_id:
            rows = await self._db.hot(_LIST_OF_ONE, {**values, "org": organization_id})
        else:
            rows = await self._db.hot(_LIST_OF_ALL, values)
        return [FolderLoss(position=row[0], organization_id=row[1], agent_id=row[2]) for row in rows]

    async def forget_losses(self, actor: Actor, positions: Sequence[int]) -> None:
        """Forget some of the actor's organization."""
        values = {"org": actor.organization_id, "positions": list(positions)}
        await retry(lambda: self._db.hot(_FORGET, values))
