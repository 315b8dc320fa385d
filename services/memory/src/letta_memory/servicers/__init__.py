"""The gRPC face of memory: unpack, call the domain, pack."""
