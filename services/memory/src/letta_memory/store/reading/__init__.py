"""What agents read of files, in PostgreSQL."""
