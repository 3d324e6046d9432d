"""Distillation methods, one file each. A module whose ``Distiller`` states ``weights`` is a method, others are helpers.

See docs/your-own-method.md.
"""
