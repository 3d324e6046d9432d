"""Sweep files, recipes and published numbers; ``perf`` measures the harness itself."""
