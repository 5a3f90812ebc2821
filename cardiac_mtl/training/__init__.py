"""`fit`, `validate` and `test`: the command, and what looks on while a paper trains."""
