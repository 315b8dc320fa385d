"""RPCs of auth: unpack, call one domain method, pack."""
