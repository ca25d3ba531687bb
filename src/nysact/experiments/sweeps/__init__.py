"""Many runs: in parallel processes, on a SLURM cluster, or chosen by the results so far."""
