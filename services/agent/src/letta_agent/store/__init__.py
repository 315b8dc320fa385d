"""The agent service in PostgreSQL, and in memory for tests."""
