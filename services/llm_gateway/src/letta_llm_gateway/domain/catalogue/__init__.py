"""Which models there are, whose they are, and what is known of them."""
