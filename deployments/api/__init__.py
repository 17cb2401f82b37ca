"""The HTTP edge: bytes in, JSON out. It knows the service by a protocol, and nothing of Ray."""
