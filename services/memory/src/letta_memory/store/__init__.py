"""Storage of memory: PostgreSQL, and an in-memory twin that passes the same tests."""
