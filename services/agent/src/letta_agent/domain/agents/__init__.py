"""Agents and conversations: made, changed, looked at."""
