"""Rules of memory."""
