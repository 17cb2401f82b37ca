"""What `scripts/torture.py` does to the service, one module a mode."""
