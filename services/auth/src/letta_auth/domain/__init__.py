"""Rules of organizations, users, API keys and signed contexts."""
