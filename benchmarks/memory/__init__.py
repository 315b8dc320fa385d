"""What memory costs to search, and how well it finds."""
