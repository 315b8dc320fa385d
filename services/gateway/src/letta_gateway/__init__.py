"""Letta's REST in front of the gRPC services."""
