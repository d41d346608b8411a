"""Recipes: what to paint where, one a file."""
