"""HTTP/JSON to gRPC and back, from descriptors alone."""
