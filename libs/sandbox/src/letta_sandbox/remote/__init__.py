"""Machines elsewhere that run calls: one for each call, gone after it."""
