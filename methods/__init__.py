"""Distillation methods, one file each. A file registers its method; see docs/your-own-method.md."""
