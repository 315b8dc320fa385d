"""One contract in front of every model."""
