"""Runs as they are stored and told: records, input, events."""
