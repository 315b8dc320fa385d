"""Rules of agents, runs and conversations."""
