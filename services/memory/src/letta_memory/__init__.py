"""Blocks, archives, passages and messages."""
