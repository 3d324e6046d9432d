"""Trackers: programs with a picture of every run, to which a process beside the trainings copies what the store has."""
