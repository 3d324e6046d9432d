"""Exports of results: a bundle to attach to a paper, and event files for TensorBoard."""
