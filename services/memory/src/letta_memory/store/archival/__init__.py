"""Archives that travel, and what is used of them, in PostgreSQL."""
