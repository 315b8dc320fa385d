"""Failures that end a start; callers of the services never see them."""


class MigrationFailed(Exception):
    """The database cannot be brought to the version that the program needs."""
