"""Torture of a store: faults made on purpose, each followed by a look for what was lost.

Each part is a module here with a function ``trials(folder, random)`` that yields an ``Outcome`` after each fault, for
as long as it is asked. ``python -m tests.torture`` runs them all and prints what was tried and what was lost.
"""

from typing import NamedTuple


class Outcome(NamedTuple):
    """The end of one fault: a word to count it under, and what was lost; empty where nothing was."""

    word: str  # noticed, healed, harmless, ...
    lost: str = ""
