"""Comparison tables from records."""
