"""What became of blocks: revisions, how they differ, and streams of them."""
