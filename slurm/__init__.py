"""Jobs: how they are submitted and watched, through submitit, on this machine and on SLURM clusters."""
