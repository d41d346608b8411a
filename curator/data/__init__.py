"""Data in and out: what is added, what may be added, what is exported."""
