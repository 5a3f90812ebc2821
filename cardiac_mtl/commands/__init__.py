"""Sub-commands that neither train nor run a study, one a module, each with its `run`."""
