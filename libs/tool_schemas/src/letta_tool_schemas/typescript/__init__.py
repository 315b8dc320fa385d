"""TypeScript, read by tree-sitter: never executed, never compiled."""
