"""Revisions of blocks in PostgreSQL."""
