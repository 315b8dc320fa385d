"""Other services that memory calls."""
