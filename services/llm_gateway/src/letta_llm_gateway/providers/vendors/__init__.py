"""Vendors of models, one file each."""
