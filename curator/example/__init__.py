"""The built-in example: rendered flowers with planted gaps."""
