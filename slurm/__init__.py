"""Everything that knows how jobs are started and watched: submitit, on this machine and on SLURM clusters."""
