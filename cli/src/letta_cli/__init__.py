"""The `letta` command."""
