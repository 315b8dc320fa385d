"""Runs tools on this host: a fork server of our own, isolated by namespaces or by Landlock."""
