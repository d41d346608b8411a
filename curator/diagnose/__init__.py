"""Failures: matching, causes, metrics, groups."""
