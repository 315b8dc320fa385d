"""Storage of auth in PostgreSQL."""
