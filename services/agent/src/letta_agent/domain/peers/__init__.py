"""What the rules need of the other services: one Protocol a file, as in clients."""
