"""From stored messages to what clients see."""
