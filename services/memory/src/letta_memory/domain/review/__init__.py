"""Proposals to change what is kept, which somebody decides about."""
