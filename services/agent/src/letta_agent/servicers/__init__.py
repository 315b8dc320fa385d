"""The RPCs of the agent service."""
