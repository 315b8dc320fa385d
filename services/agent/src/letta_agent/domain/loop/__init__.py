"""The loop of a run, its steps, and the strategies of kinds of agents."""
