"""What a process is told and tells: settings, its home, logs, faults for tests."""
