"""The processes that start confined ones: the fork server, its stages, the launcher of programs."""
