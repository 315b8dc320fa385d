"""`letta chat`."""
