"""Many runs as one: the grid of folds and seeds, its jobs, SLURM."""
