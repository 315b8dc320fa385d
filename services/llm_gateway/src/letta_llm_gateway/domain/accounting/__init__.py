"""What calls cost, what may be spent, and what is written down of them."""
