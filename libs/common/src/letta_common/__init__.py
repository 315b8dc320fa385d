"""What every service shares: actor, errors, settings, database, server and client plumbing."""
