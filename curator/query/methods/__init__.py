"""Ways to rank pool images by how likely they hold the asked failures; one a file, found by name."""
