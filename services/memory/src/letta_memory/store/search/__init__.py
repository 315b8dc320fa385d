"""What search reads, in PostgreSQL."""
