"""Models of vendors: how they are reached, spoken to and understood."""
