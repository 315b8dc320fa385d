"""Organizations, users, API keys and the signed actor context."""
