"""Sweep files: their schema, their expansion into runs and packs, and what identifies a run. Imports no torch."""
