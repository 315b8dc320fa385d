"""JSON schemas of functions, read from their source in Python or TypeScript, which is never executed."""
