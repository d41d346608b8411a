"""One HTML file of what the workspace holds."""
