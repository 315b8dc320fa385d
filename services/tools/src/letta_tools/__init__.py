"""Tool registry and isolated execution."""
