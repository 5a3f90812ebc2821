"""From predictions to per-slice and per-case rows."""
