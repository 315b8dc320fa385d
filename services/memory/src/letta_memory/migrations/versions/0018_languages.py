"""Languages of what is searched, since a query is read in those of its scopes."""

from alembic import op

revision = "0018"
down_revision = "0017"

COLUMNS = """
drop function if exists memory.find_texts;
alter table memory.search_scopes add column languages integer not null default 2;
comment on column memory.search_scopes.languages is 'bits of memory.language_of; 1: texts of a former release';
update memory.search_scopes set languages = 3 where text_count > 0;
"""


def upgrade() -> None:
    """Add the column; what is there was read as English, and is until it is indexed anew."""
    op.execute(COLUMNS)
