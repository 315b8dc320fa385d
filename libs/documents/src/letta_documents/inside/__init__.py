"""What runs in the isolated process: it finds out what a file is, and reads its text. Imported nowhere else."""
