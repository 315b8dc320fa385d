"""One file a format: each writes what a file of it says."""
