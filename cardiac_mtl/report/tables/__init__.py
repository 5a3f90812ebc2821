"""Rows to tables: what is computed over methods, and how it is laid out."""
