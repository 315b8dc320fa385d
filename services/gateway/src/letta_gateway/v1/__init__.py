"""What is known of the REST of the retired Letta V1 server 0.16.8."""
