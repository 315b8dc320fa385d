"""What tests share: databases, services in this process, servers as processes, records."""
