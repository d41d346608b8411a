"""Proof: train, verify on the holdout, read the result."""
