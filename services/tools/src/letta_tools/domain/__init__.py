"""Rules of the tools service."""
