"""Calls of tools: which ones are run again, who carries them out, in what environment."""
