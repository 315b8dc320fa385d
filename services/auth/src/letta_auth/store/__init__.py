"""Storage of auth: SQL, and its in-memory twin."""
