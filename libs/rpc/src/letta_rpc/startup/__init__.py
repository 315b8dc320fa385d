"""What a process does before it serves: it configures logs, and warns of names that are no settings."""
