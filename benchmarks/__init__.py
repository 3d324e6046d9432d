"""Sweep files and recipes; `perf` measures the harness itself."""
