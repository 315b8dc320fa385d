"""What the contract's services do, in terms of the domain."""
