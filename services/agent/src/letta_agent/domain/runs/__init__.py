"""Runs as callers see them, and the runs of this replica."""
