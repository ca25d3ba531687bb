"""Many runs in parallel, on this machine or on a SLURM cluster, and searches over settings."""
