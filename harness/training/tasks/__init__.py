"""What training does differently for each task."""
