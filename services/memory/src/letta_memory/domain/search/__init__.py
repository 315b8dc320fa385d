"""Keeping what search reads: what is done, and when."""
