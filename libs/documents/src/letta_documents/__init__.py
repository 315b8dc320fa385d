"""Text out of files of strangers, read in isolation, and its chunks."""
