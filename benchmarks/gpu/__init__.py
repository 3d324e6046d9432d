"""The GPU program: proof, figures and a published number on one card, in the minutes that it is given.

``python -m benchmarks.gpu`` runs its stages in order of value, each in a process of its own. docs/gpu.md explains it.
"""
