"""The tools that there are: what may be written, how they are found, which are built in."""
