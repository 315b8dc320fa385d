"""What a process does before it serves: logs, and a look at the names of settings."""
