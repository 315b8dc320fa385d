"""What a process needs to run: settings, its home, background work, batches of rows, errors that end a start."""
