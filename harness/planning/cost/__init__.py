"""Cost of a plan before it runs: time, devices and disk space, from similar past runs. Imports no torch."""
