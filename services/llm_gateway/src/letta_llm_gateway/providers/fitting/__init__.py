"""What stands between the neutral contract and a vendor's wire, the same for every vendor."""
