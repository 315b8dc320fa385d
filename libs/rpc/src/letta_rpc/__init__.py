"""Servers and clients of services: the boundary of every call, health, processes."""
