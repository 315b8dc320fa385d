"""What serves: all services in one process or each in its own, their database, and what is looked at before a start."""
