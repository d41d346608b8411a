"""The arms of a verification, one a file; found by name in `curator.registry.ARMS`."""
