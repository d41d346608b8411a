"""Data set formats: read and write labelled images, one at a time (`curator.registry.FORMATS`)."""
