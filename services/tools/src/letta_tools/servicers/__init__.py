"""The RPCs of the tools service."""
