"""What the kinds of agents do differently on the one loop."""
