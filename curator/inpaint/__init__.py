"""Inpainters: what repaints the masked part of an image."""
