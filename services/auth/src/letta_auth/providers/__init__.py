"""Cryptography behind the protocols of the domain."""
