"""Proposals to change what is kept, in PostgreSQL."""
