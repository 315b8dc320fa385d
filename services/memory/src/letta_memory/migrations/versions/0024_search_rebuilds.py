"""Up to where what search keeps of former texts is to be written anew."""

from alembic import op

revision = "0024"
down_revision = "0023"

COLUMNS = """
alter table memory.search_scopes add column rebuild_below integer;
comment on column memory.search_scopes.rebuild_below is 'texts below this place are to be indexed anew; null: none';
drop index memory.search_scopes_system_tasks;
create index search_scopes_system_tasks on memory.search_scopes (scope)
  where due or untidy or gone or unspelled or rebuild_below is not null;
"""


def upgrade() -> None:
    """Add the column; what is there is indexed anew when an operator says so."""
    op.execute(COLUMNS)
