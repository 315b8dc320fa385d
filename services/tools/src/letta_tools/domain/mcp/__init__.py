"""MCP servers: their tools, connections, authorization and calls."""
