"""Agents in the words of vendors' APIs, for programs that know those alone."""
