"""Tool calls: which tools there are, what rules allow, and how a call is executed."""
