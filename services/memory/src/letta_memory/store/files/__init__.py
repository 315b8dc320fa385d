"""Storage of folders and files."""
