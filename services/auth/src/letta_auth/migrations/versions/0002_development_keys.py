"""Keys made in dev mode, where everybody is an administrator, are told from others: they end with it."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("alter table auth.api_keys add column development boolean not null default false")
