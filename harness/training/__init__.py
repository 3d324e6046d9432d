"""Training: the step, the pack that shares data and teacher, checkpoints and evaluation."""
