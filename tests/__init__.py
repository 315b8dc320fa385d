"""Tests of everything; a package, because one of the installed wheels brings a `tests` of its own."""
