"""Preparation: image files become .beton files with a manifest."""
