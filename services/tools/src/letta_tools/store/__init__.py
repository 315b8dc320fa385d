"""SQL behind the Protocols of the domain, and their twins in memory."""
