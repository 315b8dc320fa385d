"""Fixtures of every test."""

pytest_plugins = ["letta_common.testing"]
