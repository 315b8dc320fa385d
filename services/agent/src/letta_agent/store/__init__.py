"""The agent service in PostgreSQL."""
