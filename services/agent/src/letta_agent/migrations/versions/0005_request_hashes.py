"""Agents and conversations know what request made them, so that its key with another body is refused."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = r"""
alter table agent.agents add column request_hash bytea;
comment on column agent.agents.request_hash is 'digest of the request that made it, without its key';
alter table agent.conversations add column request_hash bytea;
comment on column agent.conversations.request_hash is 'digest of the request that made it, without its key';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)
