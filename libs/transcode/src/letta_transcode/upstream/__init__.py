"""The services behind: what they serve, and calls to them."""
