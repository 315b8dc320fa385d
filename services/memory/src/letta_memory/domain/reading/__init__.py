"""Files as agents read them."""
