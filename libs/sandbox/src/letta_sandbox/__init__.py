"""Runs functions of strangers in isolation: on this host, or on machines elsewhere."""
