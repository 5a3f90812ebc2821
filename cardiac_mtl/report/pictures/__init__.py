"""Rows, masks and images to pictures."""
