"""Agents, runs and the agent loop."""
