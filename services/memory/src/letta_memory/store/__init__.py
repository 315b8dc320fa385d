"""Storage of memory in PostgreSQL."""
