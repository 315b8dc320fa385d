"""Runs as they are stored and told: records, input, events, and the right to act for who asked."""
