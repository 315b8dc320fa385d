"""Services as their descriptors tell of them."""
