"""Which method a path means, what it binds, and the document that describes it."""
