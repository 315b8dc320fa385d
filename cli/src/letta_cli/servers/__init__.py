"""What serves: all services in one process or each in its own, their database, and the checks before a start."""
