"""SQL behind the Protocols of the domain."""
