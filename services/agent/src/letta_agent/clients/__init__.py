"""The other services, behind the Protocols of the domain."""
