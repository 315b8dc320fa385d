"""A database with nothing in it, in place of one with the schema of every service."""

import pytest


@pytest.fixture(scope="module")
def database_url(databases):
    dsn = databases.empty()
    yield dsn
    databases.drop(dsn)
