"""Distillation methods, one file each. Registering a method is writing its file; see docs/your-own-method.md."""
